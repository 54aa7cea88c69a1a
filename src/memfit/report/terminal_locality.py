"""The summary of a locality analysis, for a terminal. Draws, computes nothing but shares."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from memfit.report.locality_summary import LocalityReport, locality_headline
from memfit.report.terminal import name_files, say, section, show, table
from memfit.units import format_bytes, format_seconds

MOST_OPS = 12


def draw_locality(console: Console, report: LocalityReport, written: Sequence[str] = ()) -> None:
    """Print the summary of ``report``; ``written``: paths of files to name at the end."""
    say(console, locality_headline(report), style="bold")
    say(console, f"{report.target} on {report.machine}; {format_seconds(report.seconds)} of CPU time", style="dim")
    if report.limits is not None:
        _draw_ops(console, report)
    section(
        console, "Misses, simulated" if report.limits is None else "Lines moved, projected from the operations' tensors"
    )
    simulated = report.limits is None
    drawn = table("", "holds", "accesses", "misses", "miss ratio", *(["written back"] if simulated else []))
    sizes = dict(report.sizes)
    for level in report.levels:
        drawn.add_row(
            Text(level.name), format_bytes(sizes.get(level.name, 0)), f"{level.accesses:,}", f"{level.misses:,}",
            f"{100 * level.misses / max(level.accesses, 1):.1f} %", *([f"{level.write_backs:,}"] if simulated else []),
        )  # fmt: skip
    show(console, drawn)
    if report.lower_bound_lines:
        least = f"at least {report.lower_bound_lines:,} lines"
        say(console, f"  any order moves {least} into {report.levels[0].name} (lower bound)", style="dim")
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
        misses = ", ".join(f"{name} {count:,}" for name, count in advice.misses.items()) or "not counted"
        bound = f" ({advice.over_bound:.2f} times the bound)" if advice.over_bound else ""
        stake = f"; {format_seconds(advice.stake_seconds)} at stake" if advice.stake_seconds is not None else ""
        say(console, f"    misses {misses}{bound}; {advice.numerics}{stake}", style="dim")
        say(console, f"    projected {advice.projected_speedup:.2f} times; {_measured(advice)}", style="dim")
    for note in report.notes:
        say(console, f"note: {note}", style="yellow")
    name_files(console, written)


def _draw_ops(console: Console, report: LocalityReport) -> None:
    assert report.limits is not None
    flops, bandwidth = report.limits
    section(
        console,
        f"Operations: measured time beside the roofline ({flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.0f} GB/s)",
    )
    wide = console.width >= 120
    drawn = table("", "calls", "time", "limited by", "least", "moved", *(["where"] if wide else []))
    for row in report.ops[:MOST_OPS]:
        name = row.name.removeprefix("aten.").removesuffix(".default")[:30]
        drawn.add_row(
            Text(name), str(row.calls), format_seconds(row.seconds), row.bound, format_seconds(row.floor_seconds),
            format_bytes(row.bytes), *([Text(row.line)] if wide else []),
        )  # fmt: skip
    show(console, drawn)
    if len(report.ops) > MOST_OPS:
        rest = sum(row.seconds for row in report.ops[MOST_OPS:])
        say(console, f"  {len(report.ops) - MOST_OPS} more take {format_seconds(rest)}", style="dim")


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
