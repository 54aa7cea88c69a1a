"""What a pass over a Program may ask of the front end that captured it, and the one way a pass rewrites a Program.

A Program holds no weights: a pass that needs the bytes behind a constant, or wants to run an operation ahead of time, asks
the ``Workbench``, which each front end implements with its own framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from memfit.ir.program import Constant, Operation, Program, Type


class Workbench(Protocol):
    """A front end's side of the passes."""

    def array(self, constant: Constant) -> Any:
        """The constant as a NumPy array; not to be changed."""

    def keep(self, array: Any) -> Constant:
        """The constant with the content of ``array``; equal contents give equal references."""

    def evaluate(
        self, program: Program, operations: Sequence[Operation], wanted: Sequence[str]
    ) -> Mapping[str, Any] | None:
        """Run operations whose inputs are all constants, in the framework itself; None where it cannot."""


Pass = Callable[[Program, Workbench], Program]


class Rewriting:
    """A Program being rewritten: replace operations, rename values, add constants; ``done`` gives the new Program.

    Operations are asked for as they are now; indices stay valid until ``done``. Names of inputs and outputs never change: a
    value that another one replaces keeps being made under its own name where it is an output.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.outputs = frozenset(program.outputs)
        self.types: dict[str, Type] = dict(program.types)
        self.constants: dict[str, Constant] = dict(program.constants)
        self._now: list[tuple[Operation, ...]] = [(op,) for op in program.operations]
        self._renamed: dict[str, str] = {}
        self._changed = False
        self._counter = 0

    def rename(self, old: str, new: str) -> None:
        """Every read of ``old`` becomes one of ``new``."""
        self._renamed[old] = new
        self._changed = True

    def resolved(self, name: str) -> str:
        """What a name is read as now."""
        while name in self._renamed:
            name = self._renamed[name]
        return name

    def replace(self, index: int, *operations: Operation) -> None:
        """Put ``operations`` in the place of operation ``index``; none removes it."""
        self._now[index] = operations
        self._changed = True

    def name(self, like: str) -> str:
        """A name that nothing has."""
        while True:
            self._counter += 1
            name = f"{like}~{self._counter}"
            if name not in self.types:
                return name

    def constant(self, constant: Constant, like: str = "constant") -> str:
        """The name of a constant of this content, added where there is none."""
        for name, known in self.constants.items():
            if known.reference == constant.reference and name not in self.program.meta.get("inputs", {}):
                return name
        name = self.name(like)
        self.constants[name], self.types[name] = constant, constant.type
        self._changed = True
        return name

    def done(self) -> Program:
        """The rewritten Program; the same object where nothing was changed."""
        if not self._changed:
            return self.program
        operations = [self._with_names(op) for now in self._now for op in now]
        made = {name for op in operations for name in op.outputs} | {*self.program.inputs, *self.constants}
        types = {name: given for name, given in self.types.items() if name in made}
        return replace(self.program, operations=tuple(operations), types=types, constants=self.constants)

    def _with_names(self, operation: Operation) -> Operation:
        if not self._renamed:
            return operation
        bodies = tuple((key, renamed(body, self.resolved)) for key, body in operation.bodies)
        inputs = tuple(self.resolved(name) for name in operation.inputs)
        if inputs == operation.inputs and all(a is b for (_, a), (_, b) in zip(bodies, operation.bodies, strict=True)):
            return operation
        return replace(operation, inputs=inputs, bodies=bodies)


def renamed(body: Program, resolved: Callable[[str], str]) -> Program:
    """A body with names of the program around it replaced."""
    moved = {name: resolved(name) for name in body.captured if resolved(name) != name}
    if not moved:
        return body

    def name_of(name: str) -> str:
        return moved.get(name, name)

    operations = tuple(
        replace(
            op, inputs=tuple(name_of(n) for n in op.inputs),
            bodies=tuple((key, renamed(inner, name_of)) for key, inner in op.bodies),
        )
        for op in body.operations
    )  # fmt: skip
    return replace(body, operations=operations, outputs=tuple(name_of(n) for n in body.outputs))


def in_bodies(work: Pass) -> Pass:
    """``work`` on a Program and on every body inside it; bodies know the types of what they read from around them."""

    def everywhere(program: Program, bench: Workbench) -> Program:
        operations: list[Operation] = []
        changed = False
        for operation in program.operations:
            bodies = tuple((key, within(body, program, bench)) for key, body in operation.bodies)
            if any(a is not b for (_, a), (_, b) in zip(bodies, operation.bodies, strict=True)):
                operation, changed = replace(operation, bodies=bodies), True
            operations.append(operation)
        return work(replace(program, operations=tuple(operations)) if changed else program, bench)

    def within(body: Program, around: Program, bench: Workbench) -> Program:
        outside = {name: around.types[name] for name in body.captured if name in around.types}
        given = replace(body, types={**outside, **body.types}) if outside.keys() - body.types.keys() else body
        after = everywhere(given, bench)
        return body if after is given else after

    return everywhere
