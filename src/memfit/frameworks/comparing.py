"""Two forms of one program held against each other: inputs made for it, outputs compared.

Inputs are random and fit their types: integers that index a constant stay inside of it, other integers are 0 or 1, as masks
are. Any front end's Program will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memfit.analyses.lowering import numbers_for
from memfit.errors import TargetError
from memfit.ir.dimension import number
from memfit.ir.program import Program

_TABLE = {"onnx.Gather": 0, "tf.GatherV2": 0, "tf.ResourceGather": 0, "aten.embedding": 0}
"""Operators that read rows of a table -> which of the first two inputs is the table; the other one holds the indices."""
_PATH = frozenset((
    *(f"onnx.{name}" for name in ("Reshape", "Cast", "Squeeze", "Unsqueeze", "Identity", "Slice", "Transpose", "Expand")),
    *(f"tf.{name}" for name in ("Reshape", "Cast", "Squeeze", "ExpandDims", "Identity", "StridedSlice", "Transpose")),
))  # fmt: skip
SIZES = (2, 5)
"""Numbers that open dimensions take in turn, so that an axis that was fixed by mistake shows."""


@dataclass(frozen=True)
class Compared:
    """``max_error``: largest difference of any output, relative to the output's largest value where that is above 1."""

    max_error: float
    equal: bool
    sizes: tuple[dict[str, int], ...]


def inputs_for(program: Program, numbers: Mapping[str, int], seed: int = 0) -> dict[str, Any]:
    """Random inputs of a program at the given sizes."""
    random = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for name in program.inputs:
        given = program.types[name]
        shape = tuple(number(size, numbers) for size in given.shape or ())
        if given.form:
            raise TargetError(
                program.name, f"its input {name!r} is no tensor ({given})", "inputs of that kind are not made up"
            )
        if given.dtype in ("float16", "float32", "float64"):
            made[name] = random.standard_normal(shape).astype(given.dtype)
        elif given.dtype == "bool":
            made[name] = random.integers(0, 2, shape).astype(bool)
        elif given.dtype == "string":
            made[name] = np.full(shape, "a", dtype=object)
        elif given.dtype.startswith(("int", "uint")) and given.dtype not in ("int4", "uint4", "int2", "uint2"):
            made[name] = random.integers(0, _limit(program, name), shape).astype(given.dtype)
        else:
            raise TargetError(
                program.name, f"its input {name!r} is {given.dtype}", "inputs of that kind are not made up"
            )
    return made


def _limit(program: Program, name: str) -> int:
    """One more than the largest integer that an input may hold: the size of what it indexes, else 2."""
    limit = 0
    waiting, seen = [name], set()
    while waiting:
        at = waiting.pop()
        for reader in program.readers.get(at, ()):
            operation = program.operations[reader]
            table = _TABLE.get(operation.kind)
            if table is not None and operation.inputs[1 - table] == at:
                shape = program.types[operation.inputs[table]].shape or (2,)
                size = shape[operation.attribute("axis", 0) if operation.kind == "onnx.Gather" else 0]
                if isinstance(size, int):
                    limit = min(limit or size, size)
            elif operation.kind in _PATH and operation.inputs[0] == at and operation.outputs[0] not in seen:
                seen.add(operation.outputs[0])
                waiting.append(operation.outputs[0])
    return max(limit, 2) if limit else 2


def compare_calls(
    program: Program, before: Callable[..., Sequence[Any]], after: Callable[..., Sequence[Any]], bound: Mapping[str, int],
    sizes: Sequence[int] = SIZES,
) -> Compared:  # fmt: skip
    """Two callables of the program's inputs, in order, run on the same random inputs at each of ``sizes``.

    Args:
        program: from which inputs are made.
        before, after: take arrays, return a list of arrays.
        bound: numbers of dimensions; the others take each of ``sizes``, where these are possible.

    Raises:
        TargetError: one of them does not run.
    """
    worst, equal, used = 0.0, True, []
    free = set(program.dimensions) - set(bound)
    for turn, size in enumerate(sizes if free else sizes[:1]):
        numbers = numbers_for(program, bound, default=size)
        given = list(inputs_for(program, numbers, turn).values())
        at = {name: numbers[name] for name in program.dimensions}
        results = []
        for call, what in ((before, "it"), (after, "the new one")):
            try:
                results.append(call(*given))
            except Exception as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
                raise TargetError(
                    program.name, f"{what} does not run on inputs of the sizes {at} ({first})",
                    "bind dimensions that need other sizes with --bind, or leave the check out with --no-verify",
                ) from error  # fmt: skip
        used.append(at)
        for a, b in zip(*results, strict=True):
            gap, same = difference(a, b)
            worst, equal = max(worst, gap), equal and same
    return Compared(worst, equal, tuple(used))


def difference(expected: Any, found: Any) -> tuple[float, bool]:
    """(largest difference relative to the largest value above 1, whether bit-equal); infinite where they cannot be held
    together."""
    if isinstance(expected, (list, dict)) or expected is None:
        if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
            pairs = [difference(a, b) for a, b in zip(expected, found, strict=True)]
            return max((error for error, _ in pairs), default=0.0), all(same for _, same in pairs)
        return (0.0, True) if expected == found else (float("inf"), False)
    a, b = np.asarray(expected), np.asarray(found)
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf"), False
    if a.dtype.kind not in "fc":
        same = bool((a == b).all())
        return (0.0 if same else float("inf")), same
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    a64, b64 = a.astype(wide), b.astype(wide)
    if not np.array_equal(np.isnan(a64), np.isnan(b64)) or not np.array_equal(np.isinf(a64), np.isinf(b64)):
        return float("inf"), False
    kept = np.isfinite(a64)
    gap = np.abs(a64[kept] - b64[kept])
    scale = max(1.0, float(np.abs(a64[kept]).max())) if kept.any() else 1.0
    return float(gap.max()) / scale if gap.size else 0.0, bool(np.array_equal(a, b, equal_nan=True))
