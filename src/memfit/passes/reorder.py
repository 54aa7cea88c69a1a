"""Orders of a step's ops that need less memory at no cost in seconds.

``optimizer_early``: every optimizer op as soon as what it waits for is final, so that a gradient dies where it is born
(LOMO, Lv et al. 2023, and torch's optimizer-in-backward do the same by hand). The results are the same bits: only
independent ops change places. Windows smaller than that are left to the native search (``core/search``), which moves
single ops while the bytes over a budget fall.
"""

from __future__ import annotations

from memfit.ir.graph import Graph


def requirements(graph: Graph) -> list[set[int]]:
    """For each op, the ops that must have run before its first run. Cost: O(reads + order edges)."""
    needs: list[set[int]] = [set() for _ in graph.ops]
    for index, op in enumerate(graph.ops):
        needs[index].update(graph.producer[s] for s in op.reads if graph.producer[s] >= 0)
    for before, after in graph.order:
        needs[after].add(before)
    for before, after in zip(graph.chain, graph.chain[1:], strict=False):
        needs[after].add(before)
    return needs


def optimizer_early(graph: Graph) -> tuple[int, ...]:
    """The program's order with each optimizer update moved to right after the last thing that it waits for.

    An update is an optimizer op that nothing reads; the optimizer ops that only prepare it come along just before it.
    Returns the program's own order where there is nothing to move. Cost: O(ops x depth of an update).
    """
    moved = {index for index, op in enumerate(graph.ops) if op.phase == "optimizer"}
    if not moved:
        return tuple(range(len(graph.ops)))
    needs = requirements(graph)
    wanted_by: list[list[int]] = [[] for _ in graph.ops]
    for index, before in enumerate(needs):
        for other in before:
            wanted_by[other].append(index)
    # An op of another phase may wait for an optimizer op: then that op, and what it needs, stays in place.
    stack = [index for index in moved if any(user not in moved for user in wanted_by[index])]
    while stack:
        index = stack.pop()
        if index in moved:
            moved.discard(index)
            stack.extend(other for other in needs[index] if other in moved)
    place = {index: rank for rank, index in enumerate(i for i in range(len(graph.ops)) if i not in moved)}
    due: dict[int, int] = {}  # optimizer op -> place of the last op of the rest that it waits for
    for index in sorted(moved):
        due[index] = max((due[o] if o in moved else place[o] for o in needs[index]), default=-1)
    updates: dict[int, list[int]] = {}
    for index in sorted(moved):
        if not any(user in moved for user in wanted_by[index]):
            updates.setdefault(due[index], []).append(index)
    out: list[int] = []
    done: set[int] = set()

    def emit(update: int) -> None:
        pending = [(update, False)]
        while pending:
            index, ready = pending.pop()
            if index in done:
                continue
            if ready:
                done.add(index)
                out.append(index)
                continue
            pending.append((index, True))
            pending.extend((other, False) for other in sorted(needs[index], reverse=True) if other in moved)

    for update in updates.get(-1, []):
        emit(update)
    for index, rank in place.items():
        out.append(index)
        for update in updates.get(rank, []):
            emit(update)
    return tuple(out)
