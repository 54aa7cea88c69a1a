"""Program -> a JAX callable that runs its operations in their order, to be compiled or called as any other.

Each operation binds its primitive again with the parameters that the capture kept, so that what no pass touched is bit-equal.
Where the Program has named dimensions they are read off the arguments; parameters and bodies are made anew for these
sizes, as they are where a pass changed a body. Custom derivative rules were inlined: differentiate first, capture then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memfit.errors import TargetError
from memfit.frameworks.jax.capture import Capture, Held
from memfit.ir.dimension import Expression, number, parse_size, symbol
from memfit.ir.program import Operation, Program


def apply(captured: Capture, program: Program | None = None) -> Callable[..., Any]:
    """A callable with the arguments and the result of the captured function.

    Args:
        captured: what ``capture`` returned.
        program: what passes made of ``captured.program``; default: itself.

    Raises (the callable): TargetError where arguments have another tree, or sizes that contradict each other.
    """
    chosen = program if program is not None else captured.program

    def run(*arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        if tree != captured.inputs:
            raise TargetError(chosen.name, f"its arguments are {captured.inputs}", f"it was called with {tree}")
        exported = any(not isinstance(size, int) for leaf in leaves for size in np.shape(leaf))
        numbers = {} if exported else _numbers(chosen, leaves)  # as captured: its parameters hold these very symbols
        results = evaluate(chosen, leaves, captured.values, numbers)
        return jax.tree.unflatten(captured.outputs, results)

    run.__name__ = chosen.name if chosen.name.isidentifier() else "run"
    return run


def evaluate(
    program: Program, arguments: list[Any], values: Mapping[str, Any], numbers: Mapping[str, int],
    around: Mapping[str, Any] | None = None,
) -> list[Any]:  # fmt: skip
    """The outputs of ``program``; values die after their last use.

    Args:
        arguments: one for each input.
        values: constants by reference.
        numbers: of the named dimensions; empty where there are none.
        around: values of the programs around this one, for bodies that read them.
    """
    known: dict[str, Any] = dict(around or {})
    known.update((name, values[constant.reference]) for name, constant in program.constants.items())
    known.update(zip(program.inputs, arguments, strict=True))
    last = {name: index for index, op in enumerate(program.operations) for name in op.reads}
    kept = {*program.outputs, *program.constants}
    for index, operation in enumerate(program.operations):
        made = perform(operation, [known[name] for name in operation.inputs], values, numbers, known)
        for name, value in zip(operation.outputs, made, strict=True):
            if name:
                known[name] = value
        for name in set(operation.reads):
            if last[name] == index and name not in kept:
                known.pop(name, None)
    return [known[name] for name in program.outputs]


def perform(
    operation: Operation, arguments: list[Any], values: Mapping[str, Any], numbers: Mapping[str, int],
    around: Mapping[str, Any] | None = None,
) -> list[Any]:  # fmt: skip
    """The outputs of one operation, as a list."""
    parameters = {key: value.value if isinstance(value, Held) else value for key, value in operation.attributes}
    primitive = parameters.pop("primitive")
    parameters.pop("effects", None)
    if numbers:
        parameters = {key: _bound(value, numbers) for key, value in parameters.items()}
        if primitive.name == "dim_as_value":
            return [jnp.asarray(parameters["dim"])]
    for key, inner in _bodies(operation, arguments, values, numbers, around or {}):
        parameters[key] = inner
    given = primitive.get_bind_params(parameters)
    functions, parameters = given if isinstance(given, tuple) else ((), given)  # a pair before JAX 0.10
    result = primitive.bind(*functions, *arguments, **parameters)
    return list(result) if primitive.multiple_results else [result]


def _bodies(
    operation: Operation, arguments: list[Any], values: Mapping[str, Any], numbers: Mapping[str, int],
    around: Mapping[str, Any],
) -> list[tuple[str, Any]]:  # fmt: skip
    """Bodies as parameters, where they are not what was captured."""
    grouped: dict[str, list[Program]] = {}
    for where, body in operation.bodies:
        grouped.setdefault(where.partition("[")[0], []).append(body)
    changed = []
    for key, programs in grouped.items():
        if not numbers and all(body.meta.get("jaxpr") is not None for body in programs):
            continue
        given = operation.attribute(key)
        given = given.value if isinstance(given, Held) else given
        originals = given if isinstance(given, tuple) else (given,)
        made = [_retraced(b, o, values, numbers, around) for b, o in zip(programs, originals, strict=True)]
        changed.append((key, tuple(made) if isinstance(given, tuple) else made[0]))
    return changed


def _retraced(
    body: Program, original: Any, values: Mapping[str, Any], numbers: Mapping[str, int], around: Mapping[str, Any]
) -> Any:
    """A jaxpr of ``body``, closed where the original is."""
    closed = hasattr(original, "consts")
    jaxpr = original.jaxpr if closed else original
    given = [
        jax.ShapeDtypeStruct(_bound(v.aval.shape, numbers), v.aval.dtype, weak_type=v.aval.weak_type)
        for v in jaxpr.invars
    ]
    outside = {name: around[name] for name in body.captured}
    made = jax.make_jaxpr(lambda *leaves: evaluate(body, list(leaves), values, numbers, outside))(*given)
    if closed:
        return made
    if made.consts:
        raise TargetError(body.name, "a pass put an array into a recomputed part", "leave that pass out")
    return made.jaxpr


def _bound(value: Any, numbers: Mapping[str, int]) -> Any:
    """A parameter with its named dimensions replaced."""
    if type(value).__name__ == "_DimExpr":
        return number(parse_size(str(value).replace("^", "**")), numbers)
    if isinstance(value, tuple):
        parts = [_bound(part, numbers) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _numbers(program: Program, leaves: list[Any]) -> dict[str, int]:
    """Named dimensions from the shapes of the arguments."""
    found: dict[str, int] = {}
    pairs = [
        (size, int(given))
        for name, leaf in zip(program.inputs, leaves, strict=True)
        for size, given in zip(program.types[name].shape or (), np.shape(leaf), strict=False)
        if isinstance(size, Expression)
    ]
    for _ in range(2):  # plain names first, then multiples of one
        for size, given in pairs:
            if len(size.terms) == 1:
                ((monomial, factor),) = size.terms
                if len(monomial) == 1 and isinstance(monomial[0], str) and given % factor == 0:
                    found.setdefault(monomial[0], given // factor)
    for size, given in pairs:
        known = {name: value for name, value in found.items() if size == symbol(name)} or found
        if number(size, known) != given:
            raise TargetError(
                program.name, f"a size {size} is {number(size, known)} by the other arguments", f"it is {given} here"
            )
    return found
