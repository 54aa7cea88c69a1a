"""A sweep as a table: one row and column a value for two names, a list otherwise; bytes, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memfit.report.sweep_summary import SweepPoint, SweepReport
from memfit.report.terminal import name_files
from memfit.units import format_bytes


def draw_sweep(console: Console, report: SweepReport, written: Sequence[str] = ()) -> None:
    """Print ``report``; ``written``: paths of files to name at the end."""
    console.print(f"{report.target}: {report.headline}", markup=False)
    names = list(report.swept)
    table = Table(box=None, pad_edge=False)
    if len(names) == 2:
        down, across = names
        table.add_column(Text(f"{down} \\ {across}"), justify="right")
        for value in report.swept[across]:
            table.add_column(Text(str(value)), justify="right")
        for (value,), row in report.lines():
            table.add_row(Text(str(value)), *(_cell(report, point) for point in row))
    else:
        for name in names:
            table.add_column(Text(name), justify="right")
        table.add_column("peak", justify="right")
        for point in report.points:
            table.add_row(*(Text(str(value)) for value in point.values.values()), _cell(report, point))
    console.print(table)
    for error, count, first in report.failures()[:3]:
        more = f" and {count - 1} more" if count > 1 else ""
        console.print(f"{dict(first)}{more}: {error}", markup=False)
    name_files(console, written)


def _cell(report: SweepReport, point: SweepPoint) -> Text:
    if point.error:
        return Text("cannot", style="yellow")
    text = format_bytes(report.need(point))
    return Text(f"{text} fits", style="green") if point.fits else Text(f"{text} no", style="red")
