"""Constant folding: operations whose inputs are all constants are run once, now, by the framework itself.

    t = Transpose(w)      w is used nowhere else        -> t becomes a constant, w goes: no byte more
                          w is also read as it is       -> both would be held: ``grow`` decides

Bytes decide, not nodes. A fold is *growing* where what it makes is larger than the constants that it lets go. Growing folds
are done only with ``grow``; the pipeline tries both and keeps what has fewer constants + live peak. Small results
(``SMALL`` bytes) do not count as growing. All folds of a sweep run in one call of the framework.

Cost: one run of the folded operations.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from memfit.ir.ops.table import facts
from memfit.ir.program import Program
from memfit.passes.workbench import Pass, Rewriting, Workbench

SMALL = 1024


def folding(*, grow: bool, never: Collection[str] = ()) -> Pass:
    """The folding pass; ``grow``: also where constants grow; ``never``: names that stay computed."""

    def fold(program: Program, bench: Workbench) -> Program:
        return _fold(program, bench, grow, frozenset(never))

    return fold


def _fold(program: Program, bench: Workbench, grow: bool, never: frozenset[str]) -> Program:
    foldable = _foldable(program, never)
    if not foldable:
        return program
    chosen = foldable if grow else _not_growing(program, foldable)
    if not chosen:
        return program
    inside = {name for index in chosen for name in program.operations[index].outputs}
    wanted = [
        name
        for name in program.types
        if name in inside
        and (name in program.outputs or any(reader not in chosen for reader in program.readers.get(name, ())))
    ]
    made = bench.evaluate(program, [program.operations[index] for index in sorted(chosen)], wanted)
    if made is None:
        return program
    work = Rewriting(program)
    for index in chosen:
        if not program.outputs or not set(program.outputs).intersection(program.operations[index].outputs):
            work.replace(index)
    for name in wanted:
        if name in program.outputs:
            continue
        constant = bench.keep(made[name])
        stated = program.types[name]
        if constant.type.dtype != stated.dtype:
            return program
        work.constants[name], work.types[name] = constant, constant.type
    return work.done()


def _foldable(program: Program, never: frozenset[str]) -> set[int]:
    """Operations that depend on constants alone."""
    fixed = set(program.constants) - set(program.meta.get("inputs", {}))
    found: set[int] = set()
    for index, operation in enumerate(program.operations):
        if not facts(operation).mergeable or operation.bodies or not all(name in fixed for name in operation.reads):
            continue
        if never.intersection(operation.outputs) or any(program.types[n].form for n in operation.outputs if n):
            continue
        found.add(index)
        fixed.update(operation.outputs)
    return found


def growing(program: Program) -> tuple[str, ...]:
    """Results that only ``grow`` would fold, the largest first."""
    foldable = _foldable(program, frozenset())
    left = foldable - _not_growing(program, foldable)
    sizes = {name: _bytes(program, name) for index in left for name in program.operations[index].outputs if name}
    return tuple(sorted(sizes, key=lambda name: -sizes[name]))


def _not_growing(program: Program, foldable: set[int]) -> set[int]:
    """The foldable operations whose results take no more bytes than the constants that go with them."""
    chosen: set[int] = set()
    covered: dict[str, int] = {}  # name -> constant bytes that folding up to it would let go
    for index in sorted(foldable):
        operation = program.operations[index]
        let_go = 0
        for name in dict.fromkeys(operation.reads):
            if set(program.readers.get(name, ())) == {index} and name not in program.outputs:
                let_go += covered.get(name, _bytes(program, name))
        made = sum(_bytes(program, name) for name in operation.outputs if name)
        inputs_ready = all(name in program.constants or program.producer[name] in chosen for name in operation.reads)
        if (inputs_ready and made <= max(let_go, SMALL)) or (inputs_ready and _shrinks_later(program, index, foldable)):
            chosen.add(index)
        covered.update((name, max(let_go, 0)) for name in operation.outputs if name)
    return chosen


def _shrinks_later(program: Program, index: int, foldable: set[int]) -> bool:
    """Whether all readers of a large result fold too, down to something small."""
    operation = program.operations[index]
    readers = {reader for name in operation.outputs for reader in program.readers.get(name, ())}
    if not readers or not readers <= foldable or set(operation.outputs) & set(program.outputs):
        return False
    return all(
        sum(_bytes(program, name) for name in program.operations[reader].outputs if name) <= SMALL for reader in readers
    )


def _bytes(program: Program, name: str) -> int:
    size: Any = program.types[name].nbytes
    return size if isinstance(size, int) else 1 << 62
