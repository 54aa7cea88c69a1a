"""The summary of a plan, for a terminal: the answer, every strategy beside the proved bound, and what the peak is made of.

Draws, computes nothing. Every word stands without colour and within 80 columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from memfit.passes.order import Ordered
from memfit.planners.problem import Placement
from memfit.report.plan_summary import AliveBuffer, PlanReport
from memfit.report.terminal import name_files, say, section, show, table
from memfit.report.words import COLOURS, TENSOR_WORDS, keep_end, place, round_size
from memfit.units import format_bytes, format_seconds

LARGEST = 10
STRATEGIES = 14
INFEASIBLE = 12


def draw_plan(console: Console, report: PlanReport, written: Sequence[str] = ()) -> None:
    """Print the summary of ``report``; ``written``: paths of files to name at the end."""
    say(console, plan_headline(report), style="bold")
    say(console, _proof(report))
    say(
        console,
        f"{report.target}: {len(report.problem)} buffers, {format_bytes(int(report.problem.size.sum()))} in sum; "
        f"planned in {format_seconds(report.seconds)} of CPU time",
        style="dim",
    )
    if report.ordered is not None:
        say(console, order_sentence(report.ordered))
    if report.unkept:
        _draw_unkept(console, report)
    if len(report.problem.memories) > 1:
        _draw_memories(console, report)
    _draw_strategies(console, report)
    _draw_alive(console, report)
    for note in report.notes:
        say(console, f"note: {note}", style="dim")
    name_files(console, written)


def plan_headline(report: PlanReport) -> str:
    """The answer in one sentence."""
    best = report.best
    text = f"Peak {format_bytes(best.peak)} ({best.peak} bytes), by {best.strategy}: {optimality(report)}"
    if report.capacity is None:
        return text
    answer = {True: "yes", False: "NO", None: "not found"}[report.fits]
    room = round_size(report.capacity) if len(report.problem.memories) == 1 else "the memories"
    return f"{text}; fits {room}: {answer}"


def optimality(report: PlanReport) -> str:
    """How good the best placement is, in words."""
    if report.best.optimal:
        return "proved optimal"
    return f"at most {gap_word(report.best.gap)} above the optimum"


def gap_word(gap: float) -> str:
    """A gap as people read it: ``0``, ``0.4 %``, ``31 %``.

    >>> gap_word(0.0), gap_word(0.004), gap_word(0.314), gap_word(0.00001)
    ('0', '0.4 %', '31 %', '<0.01 %')
    """
    if gap == 0:
        return "0"
    percent = 100 * gap
    return "<0.01 %" if percent < 0.01 else f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"


def order_sentence(ordered: Ordered) -> str:
    """What another order of the ops gives, in one sentence; bytes with the constants."""
    peak, given = format_bytes(ordered.peak), format_bytes(ordered.given_peak)
    proof = "proved optimal" if ordered.optimal else f"no order is below {format_bytes(ordered.bound)}"
    if ordered.peak == ordered.given_peak:
        return f"Order of ops: the program's own stays, at {given} live; {proof}."
    return f"Order of ops: {peak} live instead of {given}, {ordered.given_peak / ordered.peak:.2f}x less; {proof}."


def _proof(report: PlanReport) -> str:
    return f"Lower bound {format_bytes(report.bound)} ({report.bound} bytes), from {report.bound_reason}."


def _draw_unkept(console: Console, report: PlanReport) -> None:
    assert report.capacity is not None
    if report.fits is None:
        say(
            console,
            f"No placement within {report.capacity} bytes was found, and none was proved impossible: the best is "
            f"{report.best.peak - report.capacity} bytes above; give it more time (--time-limit).",
        )
        return
    say(
        console,
        f"It cannot fit {report.capacity} bytes: at least {report.bound} are needed. "
        "Raise the capacity or shrink one of these buffers, which alone do not fit together:",
    )
    names = list(report.infeasible)
    more = f" and {len(names) - INFEASIBLE} more" if len(names) > INFEASIBLE else ""
    say(console, "  " + (", ".join(names[:INFEASIBLE]) + more if names else "those alive at the largest load, below"))


def _draw_memories(console: Console, report: PlanReport) -> None:
    section(console, "Memories")
    drawn = table("memory", "peak", "capacity", "buffers")
    counts = [int((report.best.memory == index).sum()) for index in range(len(report.problem.memories))]
    for memory, peak, count in zip(report.problem.memories, report.memory_peaks, counts, strict=True):
        room = "unbounded" if memory.capacity is None else round_size(memory.capacity)
        drawn.add_row(Text(memory.name), format_bytes(peak), room, str(count))
    show(console, drawn)


def _draw_strategies(console: Console, report: PlanReport) -> None:
    section(console, "Strategies, best first; the gap is to the lower bound, the time is CPU time")
    drawn = table("strategy", "peak", "lower bound", "gap", "time", "")
    for placement in report.placements[:STRATEGIES]:
        drawn.add_row(
            Text(placement.strategy), format_bytes(placement.peak), format_bytes(report.bound), gap_word(placement.gap),
            format_seconds(placement.seconds), Text(_mark(placement, report)),
        )  # fmt: skip
    show(console, drawn)
    if len(report.placements) > STRATEGIES:
        say(console, f"  and {len(report.placements) - STRATEGIES} more, none better (--json lists all)", style="dim")
    if any("/" in placement.strategy for placement in report.placements):
        say(
            console,
            "  order/fit are greedy: size/best puts the largest first, where it fits best",
            style="dim",
        )


def _mark(placement: Placement, report: PlanReport) -> str:
    words = ["best"] if placement is report.best else []
    return ", ".join([*words, *(["optimal"] if placement.optimal else [])])


def _draw_alive(console: Console, report: PlanReport) -> None:
    where = f" in {place(report.at)}" if report.at is not None else ""
    section(console, f"Largest buffers alive at the load's peak, instant {report.instant}{where}")
    shown = report.alive[:LARGEST]
    name_width = min(max((len(row.name) for row in shown), default=2), 20)
    for row in shown:
        console.print(_alive_line(row, name_width, console.width), no_wrap=True, overflow="crop")
    total = sum(row.nbytes for row in report.alive)
    if len(report.alive) > LARGEST:
        say(console, f"  and {len(report.alive) - LARGEST} or more others", style="dim")
    elif not shown:
        say(console, "  none")
    else:
        say(console, f"  {format_bytes(total)} in sum", style="dim")


def _alive_line(row: AliveBuffer, name_width: int, width: int) -> Text:
    text = Text(f"  {format_bytes(row.nbytes):>9}  {keep_end(row.name, name_width):<{name_width}}  ")
    if row.category:
        text.append(f"{TENSOR_WORDS.get(row.category, row.category)[:10]:<10}  ", COLOURS.get(row.category, ("",))[0])
    text.append(f"at {row.offset:<12} lives [{row.lower}, {row.upper})  ", "dim")
    rest = width - len(text.plain)
    if row.label and rest > 4:
        text.append(keep_end(row.label, rest))
    text.rstrip()
    return text
