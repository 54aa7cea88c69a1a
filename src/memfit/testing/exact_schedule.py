"""The cheapest schedule of a small Graph, exactly: the yardstick of ``passes.rematerialize``.

Checkmate (Jain et al., MLSys 2020, section 4) with this Graph's rules added. Stage t ends with the first run of op t
and may run any earlier op again before it, in the program's order. Unknowns, all per stage t:

    run[t, i]      op i runs in stage t (run[t, t] = 1)             binary
    keep[t, s]     storage s is carried from stage t - 1 into t      binary
    live[t, k, s]  s lives while op k of stage t runs                continuous, pushed up by its readers
    take[t, k]     op k's first output takes over its dying input    continuous, ``reuse``

Where Checkmate multiplies "freed here" out of products, ``live`` needs none: it is at least every later read in the
stage and the carry into the next, and falls with k. Workspace counts where its op runs; ops that do not repeat run
once; no run of a stands in a stage after b's for an order edge (a, b).

Exact for schedules whose first runs keep the given order: a planner that also reorders may do better. Solved by HiGHS
through scipy. Cost: exponential; about n^3 / 6 unknowns, seconds to minutes at 40 ops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memfit.analyses.liveness import simulate
from memfit.ir.graph import Graph

_PARTS = 1e5  # the solver keeps a row within 1e-6 of its right side: a unit this small makes that less than a byte


@dataclass(frozen=True)
class ExactSchedule:
    """``schedule``: empty when infeasible or none found; ``proven``: optimal; ``seconds_bound``: proven lower bound."""

    schedule: tuple[int, ...]
    seconds: float
    seconds_bound: float
    proven: bool
    infeasible: bool


class _Program:
    """Rows and columns of an integer program, grown one by one."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.integral: list[int] = []
        self.rows: list[int] = []
        self.columns: list[int] = []
        self.values: list[float] = []
        self.row_high: list[float] = []

    def column(self, cost: float = 0, low: float = 0, high: float = 1, *, integral: bool = False) -> int:
        self.cost.append(cost)
        self.low.append(low)
        self.high.append(high)
        self.integral.append(int(integral))
        return len(self.cost) - 1

    def at_most(self, terms: Sequence[tuple[int, float]], high: float) -> None:
        row = len(self.row_high)
        for column, value in terms:
            self.rows.append(row)
            self.columns.append(column)
            self.values.append(value)
        self.row_high.append(high)

    def solve(self, seconds: float) -> Any:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_matrix

        matrix = csr_matrix((self.values, (self.rows, self.columns)), shape=(len(self.row_high), len(self.cost)))
        limits = LinearConstraint(matrix, -np.inf, np.array(self.row_high))
        return milp(
            np.array(self.cost), constraints=limits, bounds=Bounds(np.array(self.low), np.array(self.high)),
            integrality=np.array(self.integral), options={"time_limit": seconds, "mip_rel_gap": 1e-6},
        )  # fmt: skip


def exact_schedule(
    graph: Graph, budget: int, *, order: Sequence[int] | None = None, time_limit: float = 60
) -> ExactSchedule:
    """The cheapest schedule with at most ``budget`` total bytes whose first runs keep ``order`` (the program's own).

    ``time_limit``: seconds for HiGHS; past it the best found so far comes back with ``proven`` False.
    """
    ops = [graph.ops[index] for index in (order or range(len(graph.ops)))]
    count = len(ops)
    place = {index: k for k, index in enumerate(order or range(count))}
    made = {s: k for k, op in enumerate(ops) for s in op.writes}
    readers: dict[int, list[int]] = {s: [] for s in made}
    for k, op in enumerate(ops):
        for s in op.reads:
            if s in made:
                readers[s].append(k)
    last_stage = [count - 1] * count
    for before, after in graph.order:
        last_stage[place[before]] = min(last_stage[place[before]], place[after])
    p = _Program()
    unit = max(1.0, float(budget - graph.base_bytes)) / _PARTS
    scale = sum(op.seconds for op in ops) or 1.0
    run: dict[tuple[int, int], int] = {}
    keep: dict[tuple[int, int], int] = {}
    live: dict[tuple[int, int, int], int] = {}
    for t in range(count):
        for i in range(t + 1):
            again = ops[i].repeatable and t <= last_stage[i]
            run[t, i] = p.column(ops[i].seconds / scale, int(i == t), int(i == t or again), integral=True)
    for t in range(1, count + 1):
        for s, producer in made.items():
            if producer < t:
                wanted = graph.storages[s].output
                useful = wanted or any(j >= t or last_stage[j] >= t for j in readers[s])
                keep[t, s] = p.column(0, int(wanted and t == count), int(useful), integral=t < count)
    for t in range(count):
        for s, producer in made.items():
            for k in range(producer, t + 1):
                live[t, k, s] = p.column()
    for t in range(count):
        for i in range(t + 1):
            for s in ops[i].reads:
                if s in made:
                    terms = [(run[t, i], 1.0), (run[t, made[s]], -1.0)]
                    p.at_most([*terms, (keep[t, s], -1.0)] if (t, s) in keep else terms, 0)
        for s, producer in made.items():
            if producer < t + 1:
                terms = [(keep[t + 1, s], 1.0), (run[t, producer], -1.0)]
                p.at_most([*terms, (keep[t, s], -1.0)] if (t, s) in keep else terms, 0)
            for k in range(producer, t + 1):
                here = live[t, k, s]
                if k == producer or k in readers[s]:
                    p.at_most([(run[t, k], 1.0), (here, -1.0)], 0)
                follows = live[t, k + 1, s] if k < t else keep[t + 1, s]
                p.at_most([(follows, 1.0), (here, -1.0)], 0)
        for k in range(t + 1):
            terms = [(live[t, k, s], graph.storages[s].nbytes / unit) for s, q in made.items() if q <= k]
            terms += [(keep[t, s], graph.storages[s].nbytes / unit) for s, q in made.items() if k < q < t]
            terms.append((run[t, k], ops[k].workspace / unit))
            s = ops[k].reuse
            if s in made and s in ops[k].reads and ops[k].writes:
                nbytes = graph.storages[s].nbytes
                if nbytes == graph.storages[ops[k].writes[0]].nbytes:
                    take = p.column()
                    p.at_most([(take, 1.0), (run[t, k], -1.0)], 0)
                    p.at_most([(take, 1.0), (live[t, k + 1, s] if k < t else keep[t + 1, s], 1.0)], 1)
                    terms.append((take, -nbytes / unit))
            p.at_most(terms, (budget - graph.base_bytes) / unit)
    result = p.solve(time_limit)
    bound = float(result.mip_dual_bound) * scale if getattr(result, "mip_dual_bound", None) is not None else 0.0
    if result.x is None:
        return ExactSchedule((), float("inf"), bound, False, result.status == 2)
    names = list(order or range(count))
    schedule = tuple(names[i] for t in range(count) for i in range(t + 1) if result.x[run[t, i]] > 0.5)
    if simulate(graph, schedule).peak > budget:  # within the solver's tolerance, not within the budget
        return ExactSchedule((), float("inf"), bound, False, False)
    return ExactSchedule(schedule, sum(graph.ops[i].seconds for i in schedule), bound, result.status == 0, False)
