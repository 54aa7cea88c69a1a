"""A JAX step before it runs: its Program, what its arguments are for, and the bytes that XLA's own plan takes.

The Program's live bytes are those of the jaxpr in its order. The compiler fuses, reorders and reuses: what the process will
hold is what XLA's buffer assignment says of the compiled step, so both are told. Nothing runs and, where the target gives
``jax.ShapeDtypeStruct`` instead of arrays, nothing is allocated.

Cost: one trace; for the compiler's bytes one compilation, left out above ``MOST_COMPILED`` operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from memfit.errors import TargetError
from memfit.frameworks.jax.capture import capture
from memfit.frameworks.jax.compiled import compile_step
from memfit.frameworks.jax.steps import JaxStep, jax_step
from memfit.ir.dimension import number, parse_size
from memfit.ir.program import Program
from memfit.ir.step import Step
from memfit.ir.trace import Category

PROCESS_BYTES = 206_000_000
"""Resident bytes of a process that has imported JAX and compiled and run a small function on the CPU."""
MOST_COMPILED = 20_000


def program_of_step(step: Step, target: str) -> tuple[Program, JaxStep]:
    """The Program of a whole step, its inputs named by what they are for; and the step's functions.

    Raises:
        TargetError: no JAX step; CaptureError: it cannot be traced.
    """
    whole = jax_step(step, target)
    program = capture(whole.whole(), whole.arguments(), name=target).program
    return replace(program, meta={**program.meta, "categories": _categories(program, whole)}), whole


def _categories(program: Program, step: JaxStep) -> dict[str, str]:
    """Name of an input or a gradient -> its category."""
    arguments = step.arguments()
    with_state = len(arguments) > len(step.inputs)
    kinds = [Category.OPTIMIZER_STATE] if with_state else []
    of_parameters = step.train or (
        len(step.inputs) > 1 and not isinstance(step.inputs[0], jax.Array | jax.ShapeDtypeStruct)
    )
    kinds += [Category.PARAMETERS if of_parameters else Category.INPUTS]
    kinds += [Category.INPUTS] * (len(arguments) - len(kinds))
    found: dict[str, str] = {}
    names = iter(program.inputs)
    for kind, argument in zip(kinds, arguments, strict=True):
        found.update((next(names), kind.value) for _ in jax.tree.leaves(argument))
    if step.train and step.optimizer is None:
        found.update((name, Category.GRADIENTS.value) for name in program.outputs[1:] if name in program.producer)
    return found


def compiled_bytes(step: JaxStep, target: str, numbers: Mapping[str, int]) -> int:
    """Bytes of all of XLA's buffers for the step, its open dimensions bound.

    Raises:
        TargetError: XLA cannot compile it.
    """
    bound = jax.tree.map(lambda leaf: _bound(leaf, numbers), step.arguments())
    try:
        return compile_step(step.whole(), bound).peak
    except Exception as error:  # the compiler raises its own kinds
        first = (str(error).strip().splitlines() or [""])[0][:300]
        raise TargetError(target, f"XLA cannot compile its step: {type(error).__name__}: {first}") from error


def _bound(leaf: Any, numbers: Mapping[str, int]) -> Any:
    """The shape of an argument, its named dimensions replaced."""
    if not hasattr(leaf, "shape"):
        return leaf
    sizes = [
        size if isinstance(size, int) else number(parse_size(str(size).replace("^", "**")), numbers)
        for size in leaf.shape
    ]
    return jax.ShapeDtypeStruct(tuple(sizes), leaf.dtype, weak_type=getattr(leaf, "weak_type", False))
