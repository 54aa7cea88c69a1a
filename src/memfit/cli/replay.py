"""`memfit replay`: what every allocator would have reserved for the same requests."""

from __future__ import annotations

from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import check_option, device_option, html_option, json_option, output_option, settings_option
from memfit.cli.progress import progress_line
from memfit.files import write_atomically
from memfit.report.replay_summary import ReplayReport
from memfit.report.terminal_replay import draw_replay
from memfit.units import parse_bytes


def _size(context: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else parse_bytes(value)


def _names(context: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(dict.fromkeys(name for name in (part.strip() for part in value.split(",")) if name))
    if not names:
        raise click.BadParameter("it names no policy")
    return names


@click.command("replay")
@click.argument("trace")
@settings_option
@click.option("--policies", callback=_names, metavar="NAME,NAME", help="Replay under these only.")
@click.option("--capacity", metavar="SIZE", callback=_size, help="Bytes that the allocator may reserve.")
@click.option("--advise", is_flag=True, help="Rank the settings of torch's allocator for this trace.")
@click.option("--static", is_flag=True, help="Also plan the same program, and compare.")
@device_option
@click.option("--steps", type=click.IntRange(1), default=2, show_default=True, help="Of a target: steps to trace.")
@check_option
@html_option
@output_option("--png", text="Write the picture (needs matplotlib).")
@json_option
def command(
    trace: str, settings: dict[str, Any], policies: tuple[str, ...] | None, capacity: int | None, advise: bool,
    static: bool, device: str, steps: int, check: bool, html: str | None, png: str | None, as_json: bool,
) -> Answer:  # fmt: skip
    """What every allocator would have reserved for the requests of TRACE, and the least memory each runs on.

    TRACE is a saved trace (.npz of --save-trace), a torch.cuda.memory snapshot, a .csv of events or lifetimes, a graph
    (.json), or file.py:function.
    """
    if png is not None:
        from memfit.report.picture_frame import check_matplotlib  # before the replays, not after

        check_matplotlib()
    from memfit.api.replaying import replay  # here: it brings NumPy and the core, which --help need not wait for

    with progress_line() as progress:
        report = replay(
            trace, settings=settings, policies=policies, capacity=capacity, advise=advise, static=static, device=device,
            steps=steps, progress=progress,
        )  # fmt: skip
    written = _write(report, html, png)
    return Answer(
        report.to_json(), lambda console: draw_replay(console, report, written), no=check and report.fits is False
    )


def _write(report: ReplayReport, html: str | None, png: str | None) -> list[str]:
    if html is not None:
        from memfit.report.replay_page import replay_page

        write_atomically(html, replay_page(report))
    if png is not None:
        from memfit.report.replay_picture import replay_picture

        write_atomically(png, replay_picture(report))
    return [path for path in (html, png) if path is not None]
