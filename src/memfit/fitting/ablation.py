"""What each bit-exact lever of a schedule saved: the peak with one lever after another allowed, in a fixed order.

The rows add up from the program as written (every tensor in memory of its own, optimizer last) to the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memfit.analyses.liveness import simulate
from memfit.ir.graph import Graph
from memfit.ir.lever import BIT_EXACT, LeverUse
from memfit.passes.rematerialize import SchedulePlan
from memfit.passes.reorder import optimizer_early


def plain_peak(graph: Graph) -> int:
    """Projected peak of the program's own order with every output in memory of its own."""
    return simulate(_without_reuse(graph), range(len(graph.ops))).peak


def curve(graph: Graph, schedule: Sequence[int]) -> tuple[tuple[float, int], ...]:
    """(projected seconds since the start, bytes live) at each run of ``schedule``."""
    during = simulate(graph, schedule).during
    clock, rows = 0.0, []
    for index, nbytes in zip(schedule, during, strict=True):
        rows.append((clock, int(nbytes)))
        clock += graph.ops[index].seconds
    return tuple(rows)


def levers_used(graph: Graph, plan: SchedulePlan) -> tuple[LeverUse, ...]:
    """One row per lever that took part; ``saved`` may be negative where a lever costs bytes and buys time."""
    order = tuple(range(len(graph.ops)))
    plain = plain_peak(graph)
    reused = simulate(graph, order).peak
    early = simulate(graph, optimizer_early(graph)).peak
    rows = [LeverUse("in-place", BIT_EXACT, plain - reused, 0.0, "results written over inputs that die there")]
    if any(op.phase == "optimizer" for op in graph.ops):
        rows.append(
            LeverUse(
                "optimizer-early", BIT_EXACT, reused - early, 0.0, "each parameter stepped when its gradient is final"
            )
        )
    else:
        early = reused
    firsts = tuple(dict.fromkeys(plan.schedule))
    repeats = len(plan.schedule) - len(firsts)
    if repeats:
        count = (
            len({op for op in plan.schedule if plan.schedule.count(op) > 1}) if len(plan.schedule) < 3000 else repeats
        )
        rows.append(
            LeverUse("recompute", BIT_EXACT, early - plan.peak, plan.seconds - plan.baseline_seconds,
                     f"{repeats} runs again, of {count} ops")
        )  # fmt: skip
    elif plan.peak != early:
        rows.append(LeverUse("reorder", BIT_EXACT, early - plan.peak, 0.0, "ops run in an order that frees sooner"))
    return tuple(row for row in rows if row.saved or row.cost_seconds)


def _without_reuse(graph: Graph) -> Graph:
    return replace(graph, ops=tuple(replace(op, reuse=-1) for op in graph.ops))
