"""A sweep as a table: one row and column a value for two names, a list otherwise; bytes, and whether they fit."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memfit.report.sweep_summary import SweepPoint, SweepReport
from memfit.units import format_bytes


def draw_sweep(console: Console, report: SweepReport) -> None:
    """Print ``report``."""
    fitting = sum(point.fits for point in report.points)
    console.print(
        f"{report.target} on {report.device}: {fitting} of {len(report.points)} combinations fit in "
        f"{format_bytes(report.capacity)}; peak allocated, projected",
        markup=False,
    )
    names = list(report.swept)
    table = Table(box=None, pad_edge=False)
    if len(names) == 2:
        down, across = names
        table.add_column(Text(f"{down} \\ {across}"), justify="right")
        for value in report.swept[across]:
            table.add_column(Text(str(value)), justify="right")
        width = len(report.swept[across])
        for index, value in enumerate(report.swept[down]):
            row = report.points[index * width : (index + 1) * width]
            table.add_row(Text(str(value)), *(_cell(point) for point in row))
    else:
        for name in names:
            table.add_column(Text(name), justify="right")
        table.add_column("peak", justify="right")
        for point in report.points:
            table.add_row(*(Text(str(value)) for value in point.values.values()), _cell(point))
    console.print(table)
    for point in [point for point in report.points if point.error][:3]:
        console.print(f"{dict(point.values)}: {point.error}", markup=False)


def _cell(point: SweepPoint) -> Text:
    if point.error:
        return Text("cannot", style="yellow")
    text = format_bytes(point.allocated)
    return Text(f"{text} fits", style="green") if point.fits else Text(f"{text} no", style="red")
