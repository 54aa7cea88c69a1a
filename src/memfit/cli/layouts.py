"""`memfit layouts`: one program in pages, in segments, planned, and in the caching allocator: what each way loses."""

from __future__ import annotations

from typing import Any

import click

from memfit.cli.answer import Answer
from memfit.cli.options import device_option, html_option, json_option, settings_option
from memfit.cli.progress import progress_line
from memfit.files import write_atomically
from memfit.report.layouts_summary import LayoutsReport
from memfit.report.terminal_layouts import draw_layouts
from memfit.units import parse_bytes


def _pages(context: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    pages = tuple(parse_bytes(part.strip()) for part in value.split(",") if part.strip())
    if not pages:
        raise click.BadParameter("it names no size")
    return tuple(dict.fromkeys(pages))


@click.command("layouts")
@click.argument("target")
@settings_option
@click.option("--page", "pages", default="4KiB,2MiB", show_default=True, callback=_pages, metavar="SIZE,SIZE",
              help="Bytes of a page; one paged layout each.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1), default=2, show_default=True, help="Steps of a program.")
@click.option("--time-limit", type=click.FloatRange(0.0), default=5.0, show_default=True, metavar="SECONDS",
              help="CPU time of planning.")  # fmt: skip
@device_option
@html_option
@json_option
def command(
    target: str, settings: dict[str, Any], pages: tuple[int, ...], steps: int, time_limit: float, device: str, html: str | None,
    as_json: bool,
) -> Answer:  # fmt: skip
    """The memory of TARGET paged, segmented, planned and cached: what each way reserves, loses and keeps books on.

    TARGET is a saved trace (.npz), events or lifetimes (.csv), a graph (.json), a snapshot, or file.py:function.
    """
    from memfit.api.layouts import compare_layouts  # here: it brings NumPy and the core, which --help need not wait for

    with progress_line() as progress:
        report = compare_layouts(
            target, pages=pages, settings=settings, steps=steps, time_limit=time_limit, device=device, progress=progress
        )
    written = _write(report, html)
    return Answer(report.to_json(), lambda console: draw_layouts(console, report, written))


def _write(report: LayoutsReport, html: str | None) -> list[str]:
    if html is None:
        return []
    from memfit.report.layouts_page import layouts_page

    write_atomically(html, layouts_page(report))
    return [html]
