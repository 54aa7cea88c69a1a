"""Values that are cheap to make again are made beside each reader, where holding them across the peak costs more.

    m = Where(mask, 0, -inf)   [b, 1, s, s]       read by every layer, alive all the time
    ->  one Where a layer, from the mask of bytes  each dies at once

The reverse of merging, for bytes: merging joins what is equal, this parts what is long-lived, small to make and large to
hold. Candidates are values alive at the peak that the operation there does not read, made by an operation of one pass over
its output (``_CHEAP``). One is taken where constants + live peak fall at the largest sample and rise above the original's
at none. Bit-identical. Cost: one lowering and simulation a candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from memfit.analyses.liveness import simulate
from memfit.analyses.lowering import lower
from memfit.ir.ops.table import facts
from memfit.ir.program import Operation, Program

_CHEAP = frozenset((
    "Add", "Sub", "Mul", "Where", "And", "Or", "Not", "Cast", "Expand", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Neg", "Concat", "Unsqueeze", "Reshape", "Squeeze", "ConstantOfShape", "Range", "Tile",
))  # fmt: skip
_WORTH = 0.0005
_MOST = 12


def unshare(
    program: Program, numbers: dict[str, int], totals: Callable[[Program], tuple[int, ...]], limit: tuple[int, ...]
) -> tuple[Program, tuple[str, ...]]:
    """``program`` with cheap long-lived values made beside their readers.

    Args:
        program: the program.
        numbers: of its dimensions, where the peak is looked at.
        totals: constants + live peak at every sample, the largest sample last.
        limit: totals that may be reached at the other samples: those of the program before any pass.

    Returns:
        the program (the same object where nothing helps), and the names that were parted.
    """
    parted: list[str] = []
    best = totals(program)
    for _ in range(_MOST):
        for name in _candidates(program, numbers):
            tried = _beside_readers(program, name)
            after = totals(tried)
            worth = best[-1] - after[-1] >= max(_WORTH * best[-1], 4096)
            if worth and all(a <= max(b, most) for a, b, most in zip(after, best, limit, strict=True)):
                program, best = tried, after
                parted.append(name)
                break
        else:
            break
    return program, tuple(parted)


def _candidates(program: Program, numbers: dict[str, int]) -> list[str]:
    """Cheap values alive at the peak that nothing there reads, the largest first."""
    graph = lower(program, numbers, in_place=False)
    if not graph.ops:
        return []
    at = simulate(graph, range(len(graph.ops))).peak_position
    last: dict[int, int] = {}
    for position, op in enumerate(graph.ops):
        last.update(dict.fromkeys(op.reads, position))
    alive = {
        storage.label: storage.nbytes
        for index, storage in enumerate(graph.storages)
        if not storage.constant and not storage.output and graph.producer[index] < at < last.get(index, -1)
        and index not in graph.ops[at].reads
    }  # fmt: skip
    found = []
    for name in sorted(alive, key=lambda name: -alive[name]):
        maker = program.producer.get(name)
        if maker is None or len(set(program.readers.get(name, ()))) < 2:
            continue
        operation = program.operations[maker]
        what = facts(operation)
        if what.mergeable and what.name in _CHEAP and len(operation.outputs) == 1 and not operation.bodies:
            found.append(name)
    return found[:4]


def _beside_readers(program: Program, name: str) -> Program:
    """``program`` with the operation that makes ``name`` run before each reader, under a name of its own."""
    maker = program.producer[name]
    original = program.operations[maker]
    readers = sorted(set(program.readers[name]))
    types = dict(program.types)
    operations: list[Operation] = []
    count = 0
    for index, operation in enumerate(program.operations):
        if index == maker:
            continue
        if index in readers and not any(name in body.captured for _, body in operation.bodies):
            own = name if count == 0 else f"{name}~{count}"
            while own != name and own in types:
                count += 1
                own = f"{name}~{count}"
            count += 1
            types[own] = program.types[name]
            operations.append(replace(original, outputs=(own,)))
            operation = replace(operation, inputs=tuple(own if n == name else n for n in operation.inputs))
        operations.append(operation)
    inside = any(name in body.captured for reader in readers for _, body in program.operations[reader].bodies)
    return program if inside else replace(program, operations=tuple(operations), types=types)
