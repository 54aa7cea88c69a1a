"""Where every value and every temporary of a program lies: from what the rehearsal learned to addresses.

    op                    |    layer_norm     |  gelu  |       instants: each call and each free inside of an op is one,
    its calls             | +out +tmp    -tmp |  +out  |       so an output that is made after a temporary has gone may
    instants              0   1    2      3   4   5    6       lie where that was

An input dies at the end of the last op that reads it. Where an op may run over an input that dies there, the two are an
in-place pair of the Problem. Cost: that of planning, milliseconds for a thousand buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from memfit.analyses.liveness import lifetimes
from memfit.errors import MemfitError
from memfit.frameworks.torch.arena_allocator import Call
from memfit.frameworks.torch.arena_rehearsal import OVER, Rehearsed, with_true_sizes
from memfit.frameworks.torch.program import Program
from memfit.planners.lifetimes import ALIGNMENT
from memfit.planners.portfolio import plan_problem
from memfit.planners.problem import Placement, Problem, simple_problem
from memfit.planners.validate import why_invalid


@dataclass(frozen=True)
class Plan:
    """``offset``: storage -> bytes from the arena's base; ``answers``: op -> (bytes, offset or -1) of each of its calls.

    ``program``: with true sizes. ``placement``: of ``problem``, None where nothing needs memory.
    """

    program: Program
    problem: Problem | None
    placement: Placement | None
    offset: dict[int, int]
    answers: dict[int, list[tuple[int, int]]]

    @property
    def nbytes(self) -> int:
        """Bytes of the arena."""
        return 0 if self.placement is None else self.placement.peak

    @property
    def lower_bound(self) -> int:
        """Bytes that no placement can go below."""
        return 0 if self.placement is None else self.placement.bound


@dataclass
class _Rows:
    """Buffers as they are found: lifetimes, bytes, and which row each storage and each call of an op is."""

    lower: list[int] = field(default_factory=list)
    upper: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    of_storage: dict[int, int] = field(default_factory=dict)
    of_call: dict[tuple[int, bool, int], int] = field(default_factory=dict)

    def add(self, lower: int, nbytes: int, label: str, upper: int = -1) -> int:
        self.lower.append(lower)
        self.upper.append(upper)
        self.size.append(-(-nbytes // ALIGNMENT) * ALIGNMENT)
        self.labels.append(label)
        return len(self.size) - 1

    def add_calls(
        self, index: int, over: bool, calls: Sequence[Call], results: set[int], begin: int, name: str
    ) -> None:
        """The temporaries of an op; what outlives it without being a result is not ours to place."""
        for i, call in enumerate(calls):
            if i not in results and call.freed >= 0:
                row = self.add(begin + 1 + call.begun, call.nbytes, f"inside {name}", begin + 1 + call.freed)
                self.of_call[index, over, i] = row


def plan_of(program: Program, schedule: Sequence[int], found: Rehearsed, time_limit: float) -> Plan:
    """The plan of a rehearsed program; ops that may run over an input and were planned so get that form in ``found``.

    Raises:
        MemfitError: the placement is not valid (a fault of memfit).
    """
    true = with_true_sizes(program, found)
    rows, pairs = _buffers(true, schedule, found)
    problem = placement = None
    if rows.size:
        problem = replace(
            simple_problem(rows.lower, rows.upper, rows.size, alignment=ALIGNMENT), in_place=tuple(pairs),
            labels=tuple(rows.labels), meta={"source": "arena"},
        )  # fmt: skip
        placement = plan_problem(problem, time_limit=time_limit).best
        why = why_invalid(problem, placement)
        if why:
            raise MemfitError(f"the arena's placement is not valid: {why}")
    places = [] if placement is None else placement.offset.tolist()
    offset = {storage: places[row] for storage, row in rows.of_storage.items()}
    answers: dict[int, list[tuple[int, int]]] = {}
    for index in schedule:
        op, known = true.graph.ops[index], found.ops[index]
        over = known.over is not None and bool(op.writes) and offset.get(op.writes[0], -1) == offset.get(op.reuse, -2)
        if over and known.over is not None:
            known.form, known.calls, known.result_call = OVER, known.over, {}
        of_call = {call: offset[storage] for storage, call in known.result_call.items()}
        answers[index] = []
        for i, call in enumerate(known.calls):
            row = rows.of_call.get((index, over, i), -1)
            answers[index].append((call.nbytes, of_call.get(i, places[row] if row >= 0 else -1)))
    return Plan(true, problem, placement, offset, answers)


def _buffers(program: Program, schedule: Sequence[int], found: Rehearsed) -> tuple[_Rows, list[tuple[int, int]]]:
    """The buffers of a program, and which may share their bytes."""
    rows, pairs = _Rows(), list[tuple[int, int]]()
    alive = lifetimes(program.graph, schedule)
    instant = 0
    for position, index in enumerate(schedule):
        op, known = program.graph.ops[index], found.ops[index]
        over = known.over or []
        for storage in op.writes:
            if found.nbytes[storage]:
                call = known.result_call.get(storage, -1)
                begun = instant if call < 0 or known.over is not None else instant + 1 + known.calls[call].begun
                rows.of_storage[storage] = rows.add(begun, found.nbytes[storage], op.label)
        rows.add_calls(index, False, known.calls, set(known.result_call.values()), instant, op.name)
        rows.add_calls(index, True, over, set(), instant, op.name)
        end = instant + 2 + 2 * max(len(known.calls), len(over))
        if known.over is not None and alive.reused[position] and op.writes[0] in rows.of_storage:
            pairs.append((rows.of_storage[op.reuse], rows.of_storage[op.writes[0]]))
        for storage in alive.freed[position]:
            if storage in rows.of_storage:
                rows.upper[rows.of_storage[storage]] = end
        instant = end
    rows.upper = [instant if upper < 0 else upper for upper in rows.upper]
    return rows, pairs
