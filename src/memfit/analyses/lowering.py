"""Program + numbers for its dimensions -> the Graph of storages that liveness, planners and reports work on.

    Program   t = Reshape(x);  y = Add(t, c)        Graph   storages  c* x* y      (* exists before the run)
              bytes symbolic in batch                       ops       Add reads x c writes y, may take over x

Values that share bytes (a reshape, an identity) become one storage, and operations that only make such values vanish.
An operation with bodies holds, while it runs, what the hungriest of them needs inside: for a loop one turn at a time, with
the state that goes round. What a body is given unchanged lies outside (``meta["outside"]``: its inputs that cost nothing
there), and an output that is such an input is one storage with it (attribute ``shares``: pairs of output and input).
An unknown operation's outputs may alias all its inputs: reading one keeps the inputs alive.
Dimensions that depend on data take the upper bound that the front end noted (``meta["bounds"]``).

Cost: O(operations + reads).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memfit.analyses.liveness import simulate
from memfit.errors import TargetError
from memfit.ir.dimension import Size, UnboundError, number, symbols
from memfit.ir.graph import Graph, Op, Storage
from memfit.ir.ops.table import Facts, facts
from memfit.ir.program import BITS, Operation, Program, Type, programs

LARGEST = 2**63 - 1


def numbers_for(program: Program, bound: Mapping[str, int], *, default: int | None = None) -> dict[str, int]:
    """A number for every dimension that ``program`` uses: as bound, from noted upper bounds, else ``default``.

    Raises:
        TargetError: a dimension has none and there is no default; or a number is negative or no dimension's.
    """
    bounds: Mapping[str, Size] = program.meta.get("bounds", {})
    used = {name for p in programs(program) for t in p.types.values() for name in symbols(t.shape or ())}
    used |= set(program.dimensions) | {name for size in bounds.values() for name in symbols([size])}
    unknown = sorted(set(bound) - used)
    if unknown:
        raise TargetError(
            program.name, f"it has no dimension {unknown[0]!r}",
            f"its dimensions: {', '.join(program.dimensions) or 'none, all sizes are fixed'}",
        )  # fmt: skip
    numbers = dict(bound)
    for name, value in numbers.items():
        if value < 0:
            raise TargetError(program.name, f"dimension {name!r} is bound to {value}", "bind it to 0 or more")
    missing = [name for name in sorted(used) if name not in numbers and name not in bounds]
    if missing and default is None:
        raise TargetError(
            program.name, f"{len(missing)} of its dimensions have no number: {', '.join(missing[:8])}",
            "bind each: " + " ".join(f"--bind {name}=8" for name in missing[:4]),
        )  # fmt: skip
    numbers.update((name, default or 0) for name in missing)
    waiting = {name: size for name, size in bounds.items() if name not in numbers}
    while waiting:
        ready = {name: number(size, numbers) for name, size in waiting.items() if symbols([size]) <= set(numbers)}
        if not ready:
            raise TargetError(program.name, f"nothing bounds the dimension {min(waiting)!r}", "bind it with --bind")
        numbers.update((name, max(0, value)) for name, value in ready.items())
        waiting = {name: size for name, size in waiting.items() if name not in numbers}
    return numbers


def bytes_of(program: Program, name: str, numbers: Mapping[str, int]) -> int:
    """Bytes of a value.

    Raises:
        TargetError: its shape is unknown, not bound, negative, or above 2^63 - 1 bytes.
    """
    made: Type = program.types[name]
    if made.shape is None:
        raise TargetError(
            program.name, f"the shape of {name!r} is unknown even in rank", "give the model's input a shape"
        )
    try:
        sizes = [size if isinstance(size, int) else number(size, numbers) for size in made.shape]
    except UnboundError as error:
        raise TargetError(
            program.name, f"the size of {name!r} depends on {error}", f"bind it: --bind {error.names[0]}=8"
        ) from error
    if any(size < 0 for size in sizes):
        raise TargetError(program.name, f"{name!r} has a negative size: {made} is {sizes}", "bind larger dimensions")
    nbytes = -(-math.prod(sizes) * BITS.get(made.dtype, 32) // 8)
    if any(size > LARGEST for size in sizes) or nbytes > LARGEST:
        raise TargetError(
            program.name, f"{name!r} of shape {sizes} takes {nbytes} bytes, more than 2^63 - 1",
            "a size in the model, or a --bind, is wrong",
        )  # fmt: skip
    return nbytes


def lower(program: Program, numbers: Mapping[str, int], *, in_place: bool = True) -> Graph:
    """The Graph of ``program``.

    Args:
        program: a whole program; bodies are folded into the operations that hold them.
        numbers: of every dimension, from ``numbers_for``.
        in_place: let operations take over the bytes of an input that dies, where the ops table allows it.

    Raises:
        TargetError: a value has no size (see ``bytes_of``).
    """
    return _Lowering(program, numbers, in_place, _constants_of(program)).graph()


def resized(graph: Graph, program: Program, numbers: Mapping[str, int]) -> Graph:
    """``graph``, lowered from ``program`` without in-place forms, at other numbers. Cost: O(storages); bodies: as ``lower``."""
    if any(operation.bodies for operation in program.operations):
        return lower(program, numbers, in_place=False)
    inputs = frozenset(graph.meta["inputs"])
    storages = tuple(
        row if row.constant and index not in inputs else replace(row, nbytes=bytes_of(program, row.label, numbers))
        for index, row in enumerate(graph.storages)
    )
    return replace(graph, storages=storages)


def _constants_of(program: Program) -> dict[str, tuple[int, str]]:
    """Reference -> bytes and the first name, each content once."""
    found: dict[str, tuple[int, str]] = {}
    for inner in programs(program):
        for name, constant in inner.constants.items():
            found.setdefault(constant.reference, (constant.nbytes, name))
    return found


class _Lowering:
    """One program on its way down. ``around``: names that exist outside of a body; they cost nothing here."""

    def __init__(
        self, program: Program, numbers: Mapping[str, int], in_place: bool, constants: Mapping[str, tuple[int, str]],
        around: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.program, self.numbers, self.in_place, self.around = program, numbers, in_place, around
        self.storages: list[Storage] = []
        self.at: dict[str, tuple[int, ...]] = {}  # name -> storages that must live while it is read
        self.own: dict[str, int] = {}  # name -> the storage that its bytes lie in
        self.ops: list[Op] = []
        shared: dict[str, int] = {}
        for reference, (nbytes, label) in constants.items():
            shared[reference] = self._add(nbytes, label, constant=True)
        for name, constant in program.constants.items():
            if constant.reference in shared:
                self._place(name, shared[constant.reference])
            else:  # of a body: counted outside
                self._place(name, self._add(0, name, constant=True))
        outside = program.meta.get("outside", ())
        for name in program.inputs:
            if name not in self.own:
                nbytes = 0 if name in outside else bytes_of(program, name, numbers)
                self._place(name, self._add(nbytes, name, constant=True))
        for name in around:
            if name not in self.own:
                self._place(name, self._add(0, name, constant=True))

    def _add(self, nbytes: int, label: str, constant: bool = False) -> int:
        self.storages.append(Storage(nbytes, constant, False, label))
        return len(self.storages) - 1

    def _place(self, name: str, storage: int) -> None:
        self.own[name], self.at[name] = storage, (storage,)

    def graph(self) -> Graph:
        """The Graph; see the module text."""
        last: dict[int, int] = {}
        rows: list[dict[str, Any]] = []
        for operation in self.program.operations:
            row = self._operation(operation)
            if row is not None:
                last.update(dict.fromkeys(row["reads"], len(rows)))
                rows.append(row)
        kept = {storage for name in self.program.outputs if name for storage in self.at[name]}
        storages = tuple(
            Storage(s.nbytes, s.constant, not s.constant and index in kept, s.label)
            for index, s in enumerate(self.storages)
        )
        inputs = [self.own[name] for name in self.program.inputs]
        ops = []
        for index, row in enumerate(rows):
            over = [s for s in row.pop("over") if last[s] == index and s not in kept and not storages[s].constant]
            ops.append(Op(**row, reuse=over[0] if over else -1))
        return Graph(
            tuple(ops), storages, meta={"program": self.program.name, "inputs": inputs}, chain=self._chain(ops)
        )

    def _chain(self, ops: list[Op]) -> tuple[int, ...]:
        return tuple(index for index, op in enumerate(ops) if not op.repeatable)

    def _operation(self, operation: Operation) -> dict[str, Any] | None:
        what = facts(operation)
        reads = tuple(dict.fromkeys(s for name in operation.reads for s in self.at[name]))
        writes: list[int] = []
        shares = what.view >= 0 and what.view < len(operation.inputs) and operation.inputs[what.view] in self.own
        passed: Mapping[int, int] = dict(operation.attribute("shares", ()))
        for index, name in enumerate(operation.outputs):
            if not name:
                continue
            if index in passed:
                source = operation.inputs[passed[index]]
                self.own[name], self.at[name] = self.own[source], self.at[source]
                continue
            if index == 0 and shares:
                source = operation.inputs[what.view]
                self.own[name], self.at[name] = self.own[source], self.at[source]
                continue
            nbytes = bytes_of(self.program, name, self.numbers)
            writes.append(self._add(nbytes, name))
            self.own[name] = writes[-1]
            self.at[name] = (writes[-1], *reads) if what.holds else (writes[-1],)
        if not writes and shares:
            return None
        workspace = max((self._inside(body) for _, body in operation.bodies), default=0)
        return {
            "name": operation.kind, "reads": reads, "writes": tuple(writes), "workspace": workspace,
            "repeatable": what.mergeable, "label": operation.label, "over": self._over(operation, what, writes),
        }  # fmt: skip

    def _over(self, operation: Operation, what: Facts, writes: list[int]) -> list[int]:
        """Storages that the first output may be written over."""
        if not self.in_place or not writes:
            return []
        nbytes = self.storages[writes[0]].nbytes
        given = [operation.inputs[i] for i in what.in_place if i < len(operation.inputs) and operation.inputs[i]]
        places = [self.own[name] for name in given if self.at[name] == (self.own[name],)]
        return [s for s in places if self.storages[s].nbytes == nbytes]

    def _inside(self, body: Program) -> int:
        """Peak of one run of a body, with what is handed to it; what lies outside costs nothing."""
        around = frozenset(body.captured)
        graph = _Lowering(body, self.numbers, self.in_place, {}, around).graph()
        return simulate(graph, range(len(graph.ops))).peak if graph.ops else graph.base_bytes
