"""The summary of a prediction or a profile, for a terminal: the answer first, then where the bytes are.

Draws, computes nothing. Every word stands without colour and within 80 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memfit.report.summary import AliveTensor, MemoryReport
from memfit.report.words import (
    CATEGORY_WORDS,
    COLOURS,
    METER_WORDS,
    TENSOR_WORDS,
    keep_end,
    line_word,
    name_word,
    op_word,
    place,
    round_size,
    signed,
    what_word,
)
from memfit.units import format_bytes, format_seconds

LARGEST = 10
_BAR = 30


def draw_memory(console: Console, report: MemoryReport, written: Sequence[str] = ()) -> None:
    """Print the summary of ``report``; ``written``: paths of files to name at the end."""
    say(console, headline(report), style="bold")
    say(console, _kinds(report))
    say(console, f"{report.target} on {report.device}, {format_seconds(report.seconds)}", style="dim")
    section(console, "Bytes at the peak, by category")
    draw_bars(console, report.categories)
    if report.alive:
        draw_alive(console, report.alive)
    compare = report.extra.get("compare")
    if isinstance(compare, Mapping):
        _draw_compare(console, compare)
    _draw_facts(console, report)
    for note in report.notes:
        say(console, f"note: {note}", style="dim")
    name_files(console, written)


def headline(report: MemoryReport) -> str:
    """The answer in one sentence."""
    step = f", step {report.at.step}" if report.at.step > 0 else ""
    text = f"Peak live {format_bytes(report.peak.live)} {report.kind}, at {place(report.at)}{step}"
    if report.fits is None:
        return text
    room = f"in {round_size(report.capacity)}" if report.capacity is not None else f"on {report.device}"
    return f"{text}; fits {room}: {'yes' if report.fits else 'NO'}"


def draw_bars(console: Console, categories: Mapping[str, int]) -> None:
    """One bar a category, those without bytes left out."""
    total = sum(categories.values())
    mark = "#" if (console.encoding or "").lower().replace("-", "") not in ("utf8", "utf16", "utf32") else "█"
    if total <= 0:
        say(console, "  no tensor was alive")
        return
    for name, nbytes in categories.items():
        if not nbytes:
            continue
        share = nbytes / total
        line = Text(f"  {CATEGORY_WORDS.get(name, name)[:15]:<15} {format_bytes(nbytes):>9} {share:>5.0%}  ")
        line.append(mark * max(round(share * _BAR), 1), style=COLOURS.get(name, ("default",))[0])
        console.print(line, no_wrap=True, overflow="crop")


def draw_alive(console: Console, alive: Sequence[AliveTensor], largest: int = LARGEST) -> None:
    """The largest tensors alive at the peak; those whose lines would be the same share one."""
    section(console, "Largest tensors alive then")
    counts: dict[tuple[int, str, str, str, str], int] = {}
    for tensor in sorted(alive, key=lambda tensor: -tensor.nbytes):
        row = (tensor.nbytes, tensor.category, what_word(tensor), name_word(tensor), line_word(tensor.line))
        counts[row] = counts.get(row, 0) + 1
    shown = list(counts)[:largest]
    shape_width = min(max(len(row[2]) for row in shown), 24)
    rest = console.width - 2 - 9 - 1 - 10 - 2 - shape_width - 2
    line_width = min(max(len(row[4]) for row in shown), rest // 2)
    for row in shown:
        nbytes, category, shape, name, line = row
        times = f"{counts[row]} x " if counts[row] > 1 else ""
        name_width = max(rest - line_width - (2 if line_width else 0), 8)
        name = times + keep_end(name, name_width - len(times))
        text = Text(f"  {format_bytes(nbytes):>9} ")
        text.append(f"{TENSOR_WORDS.get(category, category)[:10]:<10}", COLOURS.get(category, ("",))[0])
        text.append(f"  {keep_end(shape, shape_width):<{shape_width}}  {name:<{name_width}}")
        text.append(f"  {keep_end(line, line_width)}" if line else "", "dim")
        text.rstrip()
        console.print(text, no_wrap=True, overflow="crop")


def table(*headers: str) -> Table:
    """A plain table: first column to the left, figures to the right, no box."""
    result = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_header=any(headers))
    for index, header in enumerate(headers):
        result.add_column(Text(header), justify="right" if index else "left", overflow="fold", no_wrap=bool(index))
    return result


def show(console: Console, drawn: Table) -> None:
    """Print a table two columns in."""
    console.print(Padding(drawn, (0, 0, 0, 2), expand=False))


def name_files(console: Console, written: Sequence[str]) -> None:
    """Say which files were written."""
    for path in written:
        say(console, f"wrote {path}", style="dim")


def _draw_compare(console: Console, compare: Mapping[str, Any]) -> None:
    section(console, "Projected against measured")
    drawn = table("", "projected", "measured", "difference")
    rows = {"peak live": compare.get("peak"), **(compare.get("categories") or {})}
    for name, pair in rows.items():
        if not isinstance(pair, Mapping):
            continue
        projected, measured = pair.get("projected"), pair.get("measured")
        if not projected and not measured:
            continue
        drawn.add_row(
            Text(CATEGORY_WORDS.get(name, name)),
            bytes_or_dash(projected),
            bytes_or_dash(measured),
            _difference(projected, measured),
        )
    show(console, drawn)
    divergence = compare.get("first_divergence")
    if isinstance(divergence, Mapping):
        name = op_word(str(divergence.get("op") or ""))
        where = divergence.get("module") or name or "an unknown op"
        op = f" ({name})" if name and name != where else ""
        line = f", {line_word(str(divergence['line']))}" if divergence.get("line") else ""
        projected, measured = bytes_or_dash(divergence.get("projected")), bytes_or_dash(divergence.get("measured"))
        say(console, f"  first divergence at {where}{op}{line}: {projected} projected, {measured} measured")
    elif "first_divergence" in compare:
        say(console, "  no op diverges")


def _draw_facts(console: Console, report: MemoryReport) -> None:
    extra = report.extra
    reconciliation = extra.get("reconciliation")
    if isinstance(reconciliation, Mapping) and reconciliation:
        section(console, "Three meters of the peak, and where the resident growth lies (measured)")
        drawn = table("", "")
        for name, value in reconciliation.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                drawn.add_row(Text(METER_WORDS.get(name, str(name).replace("_", " "))), format_bytes(value))
        show(console, drawn)
    first, steady = extra.get("first_step_peak"), extra.get("steady_peak")
    if first is not None and steady is not None:
        say(console, f"First step peaks at {format_bytes(first)}, later steps at {format_bytes(steady)}.")
    growth = extra.get("growth")
    if isinstance(growth, Mapping) and isinstance(growth.get("growing"), bool):
        each = growth.get("bytes_per_step", 0)
        kept = f"{signed(format_bytes(each), each)} kept from step to step"
        if growth["growing"]:
            say(console, f"GROWS: {kept}", style="bold")
        else:
            say(console, f"Steady: {kept}.")
    if report.largest_batch:
        say(console, _largest(report.largest_batch))


def _largest(found: Mapping[str, Any]) -> str:
    """``Largest batch that fits: 38 (peak 1.96 GiB, traced to be sure)``."""
    value = found.get("value")
    facts = [f"peak {format_bytes(found['peak'])}"] if value and isinstance(found.get("peak"), int) else []
    if value and "confirmed" in found:
        facts.append("traced to be sure" if found["confirmed"] else "not traced")
    answer = "none, not even 1" if value == 0 else str(value)
    return f"Largest {found.get('setting', 'batch')} that fits: {answer}" + (f" ({', '.join(facts)})" if facts else "")


def _kinds(report: MemoryReport) -> str:
    parts = []
    for name in ("live", "allocated", "reserved", "resident"):
        value = getattr(report.peak, name)
        low, high = report.peak.intervals.get(name, (value, value))
        span = f" ({format_bytes(low)} to {format_bytes(high)})" if low != high else ""
        parts.append(f"{name} {format_bytes(value)}{span}")
    return "Peaks: " + ", ".join(parts)


def bytes_or_dash(value: Any) -> str:
    """The size, or a dash where nothing was measured."""
    return "-" if value is None else format_bytes(value)


def _difference(projected: Any, measured: Any) -> str:
    if projected is None or measured is None:
        return "-"
    if projected == measured:
        return "exact"
    difference = projected - measured
    share = (
        "" if not measured else f" ({difference / measured:+.2%})" if abs(difference) * 20000 > measured else " (0%)"
    )
    return f"{signed(format_bytes(difference), difference)}{share}"


def section(console: Console, title: str) -> None:
    """A heading after an empty line."""
    console.print()
    say(console, title, style="bold")


def say(console: Console, text: str, style: str = "") -> None:
    """A line of text, wrapped, never read as markup."""
    console.print(Text(text, style=style), overflow="fold")
