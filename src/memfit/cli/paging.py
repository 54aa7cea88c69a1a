"""`memfit paging`: which replacement policy misses least for recorded accesses."""

from __future__ import annotations

import click

from memfit.cli.answer import Answer
from memfit.cli.options import html_option, json_option, output_option
from memfit.cli.progress import progress_line
from memfit.files import write_atomically
from memfit.report.paging_summary import PagingReport
from memfit.report.terminal_paging import draw_paging
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


@click.command("paging")
@click.argument("trace")
@click.option("--capacity", default="50%", show_default=True, metavar="N|SIZE|N%",
              help="Pages in memory, or their bytes (64MiB), or a share of the pages.")  # fmt: skip
@click.option("--policies", callback=_names, metavar="NAME,NAME", help="Simulate these only.")
@click.option("--page", metavar="SIZE", callback=_size, help="Bytes of a page.")
@click.option("--curve", is_flag=True, help="Also the miss ratio at other capacities.")
@html_option
@output_option("--png", text="Write the miss-ratio curve (needs matplotlib).")
@json_option
def command(
    trace: str, capacity: str, policies: tuple[str, ...] | None, page: int | None, curve: bool, html: str | None,
    png: str | None, as_json: bool,
) -> Answer:  # fmt: skip
    """Which pages miss when only some fit: every replacement policy, and the optimum, on the accesses of TRACE.

    TRACE is a .csv of accesses (id[,size]), a text of page numbers, a saved trace (.npz of --save-trace) or a graph
    (.json).
    """
    if png is not None:
        from memfit.report.picture_frame import check_matplotlib  # before the simulations, not after

        check_matplotlib()
    from memfit.api.paging import simulate_paging  # here: it brings NumPy and the core, which --help need not wait for

    with progress_line() as progress:
        report = simulate_paging(
            trace, capacity, policies=policies, page=page, curve=curve or html is not None or png is not None,
            progress=progress,
        )  # fmt: skip
    written = _write(report, html, png)
    return Answer(report.to_json(), lambda console: draw_paging(console, report, written))


def _write(report: PagingReport, html: str | None, png: str | None) -> list[str]:
    if html is not None:
        from memfit.report.paging_page import paging_page

        write_atomically(html, paging_page(report))
    if png is not None:
        from memfit.report.paging_picture import paging_picture

        write_atomically(png, paging_picture(report))
    return [path for path in (html, png) if path is not None]
