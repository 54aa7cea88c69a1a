"""Known ways to choose what the backward part computes again, as whole schedules: starting points of the planner.

``segments``: the forward part in equal segments of ops, each computed again whole before its backward begins (Chen et
al. 2016). ``knapsack``: of the forward storages that later ops read, those with the least seconds per byte are dropped
until a share of the bytes is gone, and each is computed again right before it is first read (a greedy form of the
knapsack in torch's partitioner, Dantzig 1957). Both take the order of first runs as given and may break a rule of the
Graph (in-place changes): ``seeds`` returns only valid schedules. Cost: O(runs x fan-in) each.
"""

from __future__ import annotations

from collections.abc import Sequence

from memfit.ir.graph import Graph, why_invalid

_SEGMENTS = (2, 4, 8, 16)
_SHARES = (0.4, 0.7, 0.9, 1.0)


def seeds(graph: Graph, order: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Names and valid schedules of both kinds, for several sizes; empty where nothing follows the forward part."""
    forward = sum(op.phase == "forward" for op in graph.ops)
    if forward in (0, len(graph.ops)):
        return []
    counts = sorted({count for count in (*_SEGMENTS, round(forward**0.5)) if 1 < count <= forward})
    made = [(f"{count} segments", segments(graph, count, order)) for count in counts]
    made += [(f"knapsack of {share:.0%}", knapsack(graph, share, order)) for share in _SHARES]
    return [(name, schedule) for name, schedule in made if not why_invalid(graph, schedule)]


def segments(graph: Graph, count: int, order: Sequence[int] | None = None) -> tuple[int, ...]:
    """Forward in ``count`` segments, each computed again whole before the first later op that reads from it."""
    forward, rest = _parts(graph, order)
    segment = {op: rank * count // len(forward) for rank, op in enumerate(forward)}
    kept = {s for op in rest for s in graph.ops[op].writes}
    schedule, redone = list(forward), {count - 1}
    for op in rest:
        wanted = {
            segment[graph.producer[s]] for s in graph.ops[op].reads if s not in kept and graph.producer[s] in segment
        }
        for part in sorted(wanted - redone):
            schedule += [i for i in forward if segment[i] == part and graph.ops[i].repeatable and graph.ops[i].writes]
            redone.add(part)
        schedule.append(op)
    return tuple(schedule)


def knapsack(graph: Graph, share: float, order: Sequence[int] | None = None) -> tuple[int, ...]:
    """Drops the ``share`` (0 to 1) of the bytes held for later ops that costs the least seconds per byte."""
    forward, rest = _parts(graph, order)
    inside = set(forward)
    held = {s for op in rest for s in graph.ops[op].reads if graph.producer[s] in inside}
    droppable = [s for s in held if graph.ops[graph.producer[s]].repeatable and graph.storages[s].nbytes]
    price = {s: graph.ops[graph.producer[s]].seconds / graph.storages[s].nbytes for s in droppable}
    left = share * sum(graph.storages[s].nbytes for s in droppable)
    present = held.copy()
    for s in sorted(droppable, key=lambda s: (price[s], s)):
        if left <= 0:
            break
        present.discard(s)
        left -= graph.storages[s].nbytes
    schedule = list(forward)
    for op in rest:
        for s in graph.ops[op].reads:
            _compute_again(graph, s, inside, present, schedule)
        schedule.append(op)
    return tuple(schedule)


def _compute_again(graph: Graph, storage: int, inside: set[int], present: set[int], schedule: list[int]) -> None:
    """Appends the forward ops that make ``storage`` from what is present; all they make is present then."""
    pending = [(storage, False)]
    while pending:
        s, ready = pending.pop()
        producer = graph.producer[s]
        if s in present or producer not in inside or not graph.ops[producer].repeatable:
            continue
        if ready:
            schedule.append(producer)
            present.update(graph.ops[producer].writes)
        else:
            pending.append((s, True))
            pending.extend((read, False) for read in graph.ops[producer].reads)


def _parts(graph: Graph, order: Sequence[int] | None) -> tuple[list[int], list[int]]:
    order = range(len(graph.ops)) if order is None else order
    forward = [i for i in order if graph.ops[i].phase == "forward"]
    return forward, [i for i in order if graph.ops[i].phase != "forward"]
