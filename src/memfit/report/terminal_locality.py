"""The summary of a locality analysis, for a terminal. Draws, computes nothing but shares."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from memfit.report.locality_summary import LocalityReport, locality_headline
from memfit.report.terminal import name_files, say, section, show, table
from memfit.units import format_bytes, format_seconds


def draw_locality(console: Console, report: LocalityReport, written: Sequence[str] = ()) -> None:
    """Print the summary of ``report``; ``written``: paths of files to name at the end."""
    say(console, locality_headline(report), style="bold")
    say(console, f"{report.target} on {report.machine}; {format_seconds(report.seconds)} of CPU time", style="dim")
    section(console, "Misses, simulated")
    drawn = table("", "holds", "accesses", "misses", "miss ratio", "written back")
    sizes = dict(report.sizes)
    for level in report.levels:
        drawn.add_row(
            Text(level.name), format_bytes(sizes.get(level.name, 0)), f"{level.accesses:,}", f"{level.misses:,}",
            f"{100 * level.misses / max(level.accesses, 1):.1f} %", f"{level.write_backs:,}",
        )  # fmt: skip
    show(console, drawn)
    if report.lower_bound_lines:
        say(
            console,
            f"  any order moves at least {report.lower_bound_lines:,} lines into {report.levels[0].name} (lower bound)",
            style="dim",
        )
    if report.reasons:
        section(console, "Why, by array")
        drawn = table("", "level", "misses", "cold", "capacity", "conflict", "mainly")
        for row in report.reasons:
            if row.misses:
                word = f"stride ({row.sets} sets)" if row.word == "stride" else row.word
                drawn.add_row(
                    Text(row.array),
                    row.level,
                    *(f"{n:,}" for n in (row.misses, row.cold, row.capacity, row.conflict)),
                    word,
                )
        show(console, drawn)
    section(console, "What to change" if report.advice else "Nothing better was found")
    for advice in report.advice:
        say(console, f"  {advice.kernel}: {advice.change}")
        misses = ", ".join(f"{name} {count:,}" for name, count in advice.misses.items())
        bound = f" ({advice.over_bound:.2f} times the bound)" if advice.over_bound else ""
        say(console, f"    misses {misses}{bound}; {advice.numerics}", style="dim")
        say(console, f"    projected {advice.projected_speedup:.2f} times; {_measured(advice)}", style="dim")
    for note in report.notes:
        say(console, f"note: {note}", style="yellow")
    name_files(console, written)


def _measured(advice: object) -> str:
    speedup = getattr(advice, "measured_speedup", None)
    before, after = getattr(advice, "before_seconds", None), getattr(advice, "after_seconds", None)
    words: str = getattr(advice, "measured", "")
    if before and after:
        words += f": {_times(before)} before, {_times(after)} after"
    return f"measured {speedup:.2f} times, {words}" if speedup is not None else words


def _times(seconds: tuple[float, float, float]) -> str:
    low, middle, high = (1000 * s for s in seconds)
    return f"{middle:.3g} ms ({low:.3g} to {high:.3g})"
