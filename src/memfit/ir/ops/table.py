"""Facts about operations: pure or not, which inputs an output may share bytes with, what may be written in place.

Passes ask here and know no framework; a front end adds a module with its rows (``ir/ops/onnx.py``) and names its prefix in
``_TABLES``. An operation that no table knows is impure and holds on to all its inputs: it is never removed, merged,
moved past another impure one, or evaluated ahead of time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from memfit.ir.program import Operation

_TABLES = {
    "aten": "memfit.ir.ops.aten",
    "jax": "memfit.ir.ops.jax",
    "onnx": "memfit.ir.ops.onnx",
    "tf": "memfit.ir.ops.tensorflow",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """``name``: what it is in every framework, for patterns ("add", "transpose"; "" where no pattern asks).

    pure: same inputs, same outputs, nothing else happens. random: draws numbers (pure otherwise: may be removed, not merged).
    view: the output shares the bytes of this input, -1 for none. holds: outputs may alias any input (unknown operations).
    in_place: inputs over which the first output may be written, where they die there and have its size.
    commutative: the first two inputs may change places.
    """

    name: str = ""
    pure: bool = False
    random: bool = False
    view: int = -1
    holds: bool = False
    in_place: tuple[int, ...] = ()
    commutative: bool = False

    @property
    def mergeable(self) -> bool:
        """Two of them with equal inputs give equal outputs; also: it may be evaluated ahead of time."""
        return self.pure and not self.random

    @property
    def removable(self) -> bool:
        """It may go where nobody reads its outputs."""
        return self.pure or self.random


UNKNOWN = Facts(holds=True)

Rows = dict[str, Facts]
_ROWS: dict[str, tuple[Rows, Callable[[Operation, Facts], Facts] | None]] = {}


@dataclass(frozen=True, slots=True)
class Table:
    """What a table module exports as ``TABLE``: rows by operator, and what attributes change about a row."""

    rows: Rows
    refine: Callable[[Operation, Facts], Facts] | None = field(default=None)


def facts(operation: Operation) -> Facts:
    """The facts of an operation; ``UNKNOWN`` where no table knows it."""
    framework, _, operator = operation.kind.partition(".")
    if framework not in _ROWS:
        table: Any = importlib.import_module(_TABLES[framework]).TABLE if framework in _TABLES else Table({})
        _ROWS[framework] = (table.rows, table.refine)
    rows, refine = _ROWS[framework]
    row = rows.get(operator, UNKNOWN)
    return row if refine is None else refine(operation, row)
