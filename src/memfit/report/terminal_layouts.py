"""The comparison of memory layouts, for a terminal: the answer, then where each layout's bytes go.

Draws, computes nothing but shares. Every word stands without colour and within 80 columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from memfit.report.layouts_summary import LayoutsReport, layouts_headline
from memfit.report.terminal import name_files, say, section, show, table
from memfit.units import format_bytes, format_seconds


def draw_layouts(console: Console, report: LayoutsReport, written: Sequence[str] = ()) -> None:
    """Print the comparison; ``written``: paths of files to name at the end."""
    found = report.comparison
    say(console, layouts_headline(report), style="bold")
    say(console, f"{report.target}: {found.blocks} buffers in {found.events} events, {report.kind}; "
        f"{format_seconds(report.seconds)} of CPU time", style="dim")  # fmt: skip
    section(console, "Reserved at the peak, and where it goes when most is live (projected)")
    drawn = table("layout", "reserved", "inside", "between", "lost", "metadata")
    for layout in found.layouts:
        drawn.add_row(
            Text(layout.title), format_bytes(layout.reserved), format_bytes(layout.inside),
            format_bytes(layout.between), f"{100 * layout.fragmentation:.1f} %", format_bytes(layout.metadata),
        )  # fmt: skip
    show(console, drawn)
    say(console, "  inside: rounding up, in what buffers hold; between: free and kept, in nobody's use", style="dim")
    say(console, "  lost: share of the reserved bytes; metadata: bookkeeping, on top of them", style="dim")
    say(
        console,
        f"  no layout can reserve less than the {format_bytes(found.peak_live)} that are live at once",
        style="dim",
    )
    for note in report.notes:
        say(console, f"note: {note}", style="dim")
    name_files(console, written)
