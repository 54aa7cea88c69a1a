"""A JAX function whose backward pass computes inner values again, from its forward Program cut into parts.

    y = part2(part1(part0(x)))     ->     y = part2(checkpoint(part1)(checkpoint(part0)(x)))

Each part is ``jax.checkpoint`` around the evaluation of a slice of the Program, with a policy that says what may be kept
("nothing", or the results of matrix products). Loops over layers (scan) are checkpointed inside their body. The first
``count`` parts are wrapped: their number trades time for bytes in steps of one part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax

from memfit.frameworks.jax.apply import evaluate
from memfit.frameworks.jax.capture import Capture
from memfit.ir.program import Operation, Program

POLICIES = ("nothing", "products")


@dataclass(frozen=True)
class Recompute:
    """What is computed again. ``cuts``: positions in the Program; ``count``: parts that are, from the first on.

    ``policy``: a name of POLICIES, what a part may keep; ``loops``: whether bodies of loops compute theirs again.
    """

    cuts: tuple[int, ...] = ()
    count: int = 0
    policy: str = "nothing"
    loops: bool = False

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return len(self.cuts) + 1 if self.cuts else 0


def recomputing(captured: Capture, choice: Recompute) -> Callable[..., Any]:
    """The captured function, to be differentiated: its backward pass computes again what ``choice`` says.

    Args:
        captured: of the forward function, with ``keep_rules``.
        choice: cuts of its Program.
    """
    program = _with_loops(captured.program, choice) if choice.loops else captured.program
    slices = _slices(program, choice.cuts)

    def run(*arguments: Any) -> Any:
        known = dict(zip(program.inputs, jax.tree.leaves(arguments), strict=True))
        for index, part in enumerate(slices):
            call = _caller(part, captured.values)
            if index < choice.count:
                call = jax.checkpoint(call, policy=_policy(choice.policy))
            known.update(zip(part.outputs, call([known[name] for name in part.inputs]), strict=True))
            needed = {name for later in slices[index + 1 :] for name in later.inputs} | set(program.outputs)
            known = {name: value for name, value in known.items() if name in needed}
        known.update((name, captured.values[c.reference]) for name, c in program.constants.items())
        return jax.tree.unflatten(captured.outputs, [known[name] for name in program.outputs])

    return run


def _policy(name: str) -> Any:
    return jax.checkpoint_policies.dots_saveable if name == "products" else jax.checkpoint_policies.nothing_saveable


def _caller(part: Program, values: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda given: evaluate(part, given, values, {})


def _slices(program: Program, cuts: tuple[int, ...]) -> list[Program]:
    """The Program in parts; inputs of a part are what it reads from outside, outputs what is read after it."""
    edges = [0, *(position + 1 for position in cuts), len(program.operations)]
    found = []
    for begin, end in itertools.pairwise(edges):
        operations = program.operations[begin:end]
        made = {name for op in operations for name in op.outputs if name}
        reads = dict.fromkeys(name for op in operations for name in op.reads)
        later = {name for op in program.operations[end:] for name in op.reads} | set(program.outputs)
        constants = {name: program.constants[name] for name in reads if name in program.constants}
        inputs = tuple(name for name in reads if name not in made and name not in constants)
        outputs = tuple(name for op in operations for name in op.outputs if name and name in later)
        found.append(Program(inputs, outputs, operations, program.types, constants, f"{program.name}[{begin}:{end}]"))
    return found


def _with_loops(program: Program, choice: Recompute) -> Program:
    """The Program with the bodies of its scans checkpointed."""
    return replace(program, operations=tuple(_looped(op, choice) for op in program.operations))


def _looped(operation: Operation, choice: Recompute) -> Operation:
    if operation.kind != "jax.scan":
        return operation
    closed = operation.attribute("jaxpr")
    wrapped = jax.checkpoint(jax.extend.core.jaxpr_as_fun(closed), policy=_policy(choice.policy))
    given = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=v.aval.weak_type) for v in closed.jaxpr.invars]
    again = jax.make_jaxpr(wrapped)(*given)
    attributes = tuple((key, again if key == "jaxpr" else value) for key, value in operation.attributes)
    return replace(operation, attributes=attributes)
