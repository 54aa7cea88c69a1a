"""The summary of a paging simulation, for a terminal: the answer, then every policy with its misses.

Draws, computes nothing but shares. Every word stands without colour and within 80 columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from memfit.report.paging_summary import PagingReport, paging_headline
from memfit.report.terminal import name_files, say, section, show, table
from memfit.units import format_bytes, format_seconds

CURVE_POINTS = 8


def draw_paging(console: Console, report: PagingReport, written: Sequence[str] = ()) -> None:
    """Print the summary of ``report``; ``written``: paths of files to name at the end."""
    say(console, paging_headline(report), style="bold")
    of = f" of {format_bytes(report.page_bytes)}" if report.page_bytes else ""
    say(console, f"{report.target}: {report.accesses} accesses to {report.pages} pages{of}; "
        f"{format_seconds(report.seconds)} of CPU time", style="dim")  # fmt: skip
    section(console, "Policies, the fewest misses first")
    drawn = table("", "misses", "hits", "evictions", "hit rate", *(["read again"] if report.page_bytes else []))
    for row in report.rows:
        again = [format_bytes((row.misses - report.pages) * report.page_bytes)] if report.page_bytes else []
        drawn.add_row(
            Text(row.title), str(row.misses), str(report.accesses - row.misses), str(row.evictions),
            f"{100 * row.hit_rate:.1f} %", *again,
        )  # fmt: skip
    show(console, drawn)
    say(console, f"  {report.pages} misses are first uses, which no policy avoids; OPT knows the future, MRU is a baseline",
        style="dim")  # fmt: skip
    if report.page_bytes:
        say(console, "  read again: bytes of the misses after the first uses, projected", style="dim")
    if report.curves:
        _draw_curves(console, report)
    for note in report.notes:
        say(console, f"note: {note}", style="dim")
    name_files(console, written)


def _draw_curves(console: Console, report: PagingReport) -> None:
    section(console, "Miss ratio by capacity, in percent of the accesses")
    capacities = report.curves[0].capacity
    step = (len(capacities) - 1) / max(min(CURVE_POINTS, len(capacities)) - 1, 1)
    wanted = [report.pages * (i + 1) / CURVE_POINTS for i in range(CURVE_POINTS)]
    shown = sorted({min(range(len(capacities)), key=lambda i: abs(capacities[i] - w)) for w in wanted}) if step else [0]
    drawn = table("pages", *(str(capacities[i]) for i in shown))
    for curve in report.curves:
        drawn.add_row(Text(curve.title), *(f"{100 * curve.misses[i] / report.accesses:.1f}" for i in shown))
    show(console, drawn)
