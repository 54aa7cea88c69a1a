"""Parts of a graph whose best order does not depend on the rest: found, ordered once, and made a chain.

    fork --> a1 -> a2 --> join        {a1, a2, b1, b2} stand to every other op as one: all before it, all after it, or
         `-> b1 -> b2 -'              apart from it. Whatever else runs in between, one order of them is best.

A **module** is such a set, built bottom-up as in the reduction of series-parallel graphs (Valdes, Tarjan and Lawler 1982)
on the transitively reduced needs: an op, two modules in a row, or modules with the same neighbours on both sides. Its
order is the one that `native/core/order_exact` finds with a target that rises no further than it must: every step down
to a lower level is taken at the least peak that allows one, from the front and from the back. That profile is best in
any context (Liu 1987 for trees, Kayaaslan et al. 2018 for series-parallel graphs with bytes on edges; here a result may
have several readers, as long as none of them runs apart from the module). Chains of such orders make a series-parallel
graph one chain, and shrink what is left of any other. A module whose exact order is not found is left as it was.

Cost: O(ops^2 / 64) for the reduction, then the exact searches; each walks chains only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from memfit import _core
from memfit.ir.graph import Graph

_STATES = 200_000  # of one exact search
_MOST_OPS = 20_000  # reachability takes ops^2 / 8 bytes


@dataclass
class _Module:
    """Ops in order; neighbours are names of other modules."""

    ops: list[int]
    before: set[int] = field(default_factory=set)
    after: set[int] = field(default_factory=set)


def rows(lists: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Compressed rows: starts and items."""
    start = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in lists], out=start[1:])
    return start, np.fromiter((item for row in lists for item in row), dtype=np.int32, count=int(start[-1]))


def problem_of(graph: Graph, needs: Sequence[Iterable[int]]) -> Any:
    """The native form of ``graph`` for order searches, under ``needs``: constants left out. Cost: O(reads + needs)."""
    ops, storages = graph.ops, graph.storages
    reads = [sorted({s for s in op.reads if not storages[s].constant}) for op in ops]
    reuse = [-1 if op.reuse < 0 or storages[op.reuse].constant else op.reuse for op in ops]
    return _core.OrderProblem(
        *rows(reads), *rows([list(dict.fromkeys(op.writes)) for op in ops]), *rows([sorted(row) for row in needs]),
        np.array([op.workspace for op in ops], dtype=np.int64), np.array(reuse, dtype=np.int32),
        np.array([s.nbytes for s in storages], dtype=np.int64), np.array([s.output for s in storages], dtype=np.uint8),
    )  # fmt: skip


def chained(graph: Graph, needs: Sequence[set[int]], seconds: float) -> list[set[int]]:
    """``needs`` with the ops of every module in a row, in its best order; ``seconds``: time limit."""
    out = [set(row) for row in needs]
    if len(needs) <= _MOST_OPS:
        for module in _Reduction(graph, needs, seconds).modules.values():
            for first, second in pairwise(module.ops):
                out[second].add(first)
    return out


class _Reduction:
    """Modules, merged until no two can be."""

    def __init__(self, graph: Graph, needs: Sequence[set[int]], seconds: float) -> None:
        self.graph, self.needs, self.deadline = graph, needs, time.monotonic() + seconds
        self.readers: dict[int, list[int]] = {}
        for index, op in enumerate(graph.ops):
            for s in op.reads:
                self.readers.setdefault(s, []).append(index)
        self.above = _reachable(needs)
        self.modules = {index: _Module([index]) for index in range(len(needs))}
        for index, row in enumerate(needs):
            far = 0
            for other in row:
                far |= self.above[other]
            for other in row:
                if not far >> other & 1:
                    self.modules[index].before.add(other)
                    self.modules[other].after.add(index)
        self.left_alone: set[tuple[int, ...]] = set()
        pending = set(self.modules)
        while pending:
            name = pending.pop()
            if name in self.modules:
                pending |= self._in_a_row(name) or self._side_by_side(name)

    def _in_a_row(self, name: int) -> set[int]:
        module = self.modules[name]
        for first, second in ((name, _only(module.after)), (_only(module.before), name)):
            if first is None or second is None:
                continue
            if _only(self.modules[first].after) == second and _only(self.modules[second].before) == first:
                later = self.modules.pop(second)
                self.modules[first].ops += later.ops
                self.modules[first].after = later.after
                for other in later.after:
                    self.modules[other].before.remove(second)
                    self.modules[other].before.add(first)
                return {first, *self.modules[first].before, *later.after}
        return set()

    def _side_by_side(self, name: int) -> set[int]:
        module = self.modules[name]
        near = next(iter(module.before), None)
        if near is not None:
            beside = self.modules[near].after
        elif module.after:
            beside = self.modules[next(iter(module.after))].before
        else:
            return set()
        twins = sorted(
            n for n in beside if self.modules[n].before == module.before and self.modules[n].after == module.after
        )
        if len(twins) < 2 or tuple(twins) in self.left_alone:
            return set()
        order = self._best([self.modules[n].ops for n in twins])
        if order is None:
            self.left_alone.add(tuple(twins))
            return set()
        for other in twins:
            if other != name:
                del self.modules[other]
                for n in module.before:
                    self.modules[n].after.discard(other)
                for n in module.after:
                    self.modules[n].before.discard(other)
        module.ops = order
        return {name, *module.before, *module.after}

    def _best(self, chains: list[list[int]]) -> list[int] | None:
        """The best order of chains that stand side by side; None where it depends on others, or is not found."""
        ops = [index for chain in chains for index in chain]
        inside = set(ops)
        storages = sorted({s for v in ops for s in (*self.graph.ops[v].reads, *self.graph.ops[v].writes)})
        storages = [s for s in storages if not self.graph.storages[s].constant]
        kept, entries = [], []
        for place, s in enumerate(storages):
            outside = [r for r in self.readers.get(s, ()) if r not in inside]
            later = [r for r in outside if not self.above[ops[0]] >> r & 1]
            if any(not self.above[r] >> ops[0] & 1 for r in later):
                return None  # a reader that runs apart from these decides when the result dies
            kept.append(self.graph.storages[s].output or bool(later))
            if self.graph.producer[s] not in inside:
                entries.append(place)
        return self._search(chains, ops, storages, kept, entries)

    def _search(
        self, chains: list[list[int]], ops: list[int], storages: list[int], kept: list[bool], entries: list[int]
    ) -> list[int] | None:
        local = {s: place for place, s in enumerate(storages)}
        count = len(ops)
        reads: list[list[int]] = [sorted({local[s] for s in self.graph.ops[v].reads if s in local}) for v in ops]
        writes = [[local[s] for s in dict.fromkeys(self.graph.ops[v].writes)] for v in ops]
        needs: list[list[int]] = []
        for chain in chains:
            start = len(needs)
            needs += [[count] if k == 0 else [start + k - 1, count] for k in range(len(chain))]
        problem = _core.OrderProblem(
            *rows([*reads, []]), *rows([*writes, entries]), *rows([*needs, []]),
            np.array([*(self.graph.ops[v].workspace for v in ops), 0], dtype=np.int64),
            np.array([*(local.get(self.graph.ops[v].reuse, -1) for v in ops), -1], dtype=np.int32),
            np.array([self.graph.storages[s].nbytes for s in storages], dtype=np.int64),
            np.array(kept, dtype=np.uint8),
        )  # fmt: skip
        entry, rest = np.array([count], dtype=np.int32), np.arange(count, dtype=np.int32)
        seconds = max(0.0, self.deadline - time.monotonic())
        order, _, complete = problem.exact(entry, rest, -1, np.iinfo(np.int64).max // 8, _STATES, seconds)
        return [ops[place] for place in order.tolist()] if complete and len(order) == count else None


def _only(names: set[int]) -> int | None:
    return next(iter(names)) if len(names) == 1 else None


def _reachable(needs: Sequence[set[int]]) -> list[int]:
    """For each op, a bit for every op that runs before it in every order."""
    above: list[int | None] = [None] * len(needs)
    for start in range(len(needs)):
        stack = [start]
        while stack:
            index = stack[-1]
            missing = [other for other in needs[index] if above[other] is None]
            if missing:
                stack += missing
                continue
            stack.pop()
            bits = 0
            for other in needs[index]:
                bits |= (above[other] or 0) | 1 << other
            above[index] = bits
    return [bits or 0 for bits in above]
