"""The summary of a replay, for a terminal: the answer, every policy beside the live peak, why bytes are stranded, advice.

Draws, computes nothing. Every word stands without colour and within 80 columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from memfit.report.replay_summary import AdviceRow, PolicyRow, ReplayReport, StaticAgainstDynamic
from memfit.report.terminal import name_files, say, section, show, table
from memfit.report.words import round_size
from memfit.units import format_bytes, format_seconds

ADVICE_SHOWN = 8
STRANDED_SHOWN = 3


def draw_replay(console: Console, report: ReplayReport, written: Sequence[str] = ()) -> None:
    """Print the summary of ``report``; ``written``: paths of files to name at the end."""
    if report.check is not None:
        _draw_check(console, report)
    say(console, replay_headline(report), style="bold")
    say(console, f"{report.target}, {report.kind}: {report.events} events, {report.blocks} allocations, the largest "
        f"{format_bytes(report.largest)}; {format_seconds(report.seconds)} of CPU time", style="dim")  # fmt: skip
    _draw_policies(console, report)
    _draw_stranded(console, report)
    if report.advice:
        _draw_advice(console, report.advice, report)
    if report.static is not None:
        _draw_static(console, report.static)
    for note in report.notes:
        say(console, f"note: {note}", style="dim")
    name_files(console, written)


def replay_headline(report: ReplayReport) -> str:
    """The answer in one sentence."""
    text = f"Peak live {format_bytes(report.peak_live)} {report.kind}"
    if not report.policies:
        return text
    best, worst = report.policies[0], max(report.policies, key=lambda row: row.peak_reserved)
    if len(report.policies) == 1:
        text += f"; {best.key} reserves {format_bytes(best.peak_reserved)} and runs on {format_bytes(best.smallest_capacity)}"
    else:
        text += (
            f"; the allocators reserve up to {format_bytes(worst.peak_reserved)} ({worst.key}); "
            f"{best.key} runs on the least, {format_bytes(best.smallest_capacity)}"
        )
    if report.capacity is None:
        return text
    fitting = [row.key for row in report.policies if row.fits]
    some = ", ".join(fitting) if len(fitting) < 4 else f"{len(fitting)} of {len(report.policies)} policies"
    which = "all" if len(fitting) == len(report.policies) else some or "none"
    return f"{text}; runs in {round_size(report.capacity)}: {which}"


def share(value: float) -> str:
    """A share as people read it.

    >>> share(0.1234), share(0.0)
    ('12.3 %', '0.0 %')
    """
    return f"{100 * value:.1f} %"


def _draw_policies(console: Console, report: ReplayReport) -> None:
    section(console, "Policies, the least memory first")
    fits = report.capacity is not None
    drawn = table("", "runs on", "calls", "reserved", "lost", "rounding", "holes", *(["fits"] if fits else []))
    for row in report.policies:
        cells = [
            format_bytes(row.smallest_capacity), str(row.calls_at_smallest), format_bytes(row.peak_reserved),
            share(row.fragmentation), share(row.internal), share(row.external),
        ]  # fmt: skip
        drawn.add_row(Text(row.key), *cells, *(["yes" if row.fits else "NO"] if fits else []))
    show(console, drawn)
    say(
        console,
        "  runs on: the smallest capacity, with driver calls there; reserved: without a limit, at its peak",
        style="dim",
    )
    say(console, "  lost: 1 - peak live / peak reserved; rounding, holes: of what is reserved at its peak", style="dim")


def _draw_stranded(console: Console, report: ReplayReport) -> None:
    rows = [row for row in report.policies if row.stranded]
    if not rows:
        return
    worst = max(rows, key=lambda row: row.fragmentation)
    torch = [row for row in rows if row.key == "torch" and row is not worst]
    for row in [*torch, worst]:
        section(console, f"Where {row.key} strands bytes when it reserves most")
        _draw_holes(console, row)


def _draw_holes(console: Console, row: PolicyRow) -> None:
    for stranded in row.stranded[:STRANDED_SHOWN]:
        of = f"{format_bytes(stranded.free_bytes)} of {format_bytes(stranded.segment_bytes)}"
        say(console, f"  {of}: {stranded.why}")
    rest = len(row.stranded) - STRANDED_SHOWN
    if rest > 0:
        say(console, f"  and {rest} more places", style="dim")


def _draw_advice(console: Console, advice: Sequence[AdviceRow], report: ReplayReport) -> None:
    section(console, "Settings of torch's allocator, best first")
    drawn = table("PYTORCH_ALLOC_CONF", "runs on", "calls", "reserved")
    shown = list(advice[:ADVICE_SHOWN])
    shown += [row for row in advice[ADVICE_SHOWN:] if not row.string]
    for row in shown:
        drawn.add_row(Text(row.string or "(the defaults)"), format_bytes(row.smallest_capacity), str(row.driver_calls),
                      format_bytes(row.peak_reserved))  # fmt: skip
    show(console, drawn)
    best = advice[0]
    if best.string:
        say(console, f"  export PYTORCH_ALLOC_CONF={best.string}", style="bold")
    else:
        say(console, "  The defaults are best for this trace: leave PYTORCH_ALLOC_CONF unset.")


def _draw_static(console: Console, found: StaticAgainstDynamic) -> None:
    section(console, "Static against dynamic")
    drawn = table("", "reserved", "lost", "by plan", "time an event")
    for contender in found.contenders:
        drawn.add_row(
            Text(contender.name), format_bytes(contender.peak), share(contender.fragmentation),
            share(contender.static_share), f"{contender.seconds_per_event * 1e9:.0f} ns",
        )  # fmt: skip
    show(console, drawn)
    say(console, f"  {found.recommendation}")


def _draw_check(console: Console, report: ReplayReport) -> None:
    check = report.check
    assert check is not None
    if check.differing:
        say(console, f"{check.differing} of {check.checked} recorded addresses DIFFER from the replay; first at {check.first}",
            style="bold")  # fmt: skip
    else:
        say(console, f"All {check.checked} recorded addresses are those of the replay.", style="bold")
