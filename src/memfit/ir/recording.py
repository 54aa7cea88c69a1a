"""Recording: what a run's allocator said, raw: blocks, the operations they were made in, marks, Python stacks.

The form in which a framework's hook hands a run to ``observe.recorder``, which makes a Trace of it. Columns, in time
order; an event names its operation by index, and operations form trees through ``parent``::

    event      0    1    2    3          operation   0 aten::linear    parent -1   sequence 7
    block      0    1    1    0                      1 aten::addmm     parent  0   sequence 8
    delta    +64  +32  -32  -64                      2 AddmmBackward0  parent -1   sequence 8 (came back to 1)
    operation -1    1   -1    2

A mark stands before event ``mark_event`` and before operation ``mark_operation``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from memfit.ir.trace import Category

Column64 = npt.NDArray[np.int64]
Column32 = npt.NDArray[np.int32]


class Scope(IntEnum):
    """Kind of an operation: of the framework's library, a node of the backward pass, named by the user, or run by the
    engine of the backward pass on what the last node returned.
    """

    FUNCTION = 0
    BACKWARD = 1
    USER = 7
    AFTER_NODE = 64


@dataclass(frozen=True, slots=True)
class PythonFrame:
    """One line of a Python stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class KnownStorage:
    """What a storage turned out to be for. ``block``: its number, -1: not from the recorded allocator."""

    block: int
    nbytes: int
    category: Category
    label: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""


@dataclass(frozen=True)
class Recording:
    """See the module text. ``operation``, ``parent``, ``stack`` columns hold -1 for none.

    Attributes:
        block, delta, operation, nanoseconds, stack: one row per event; bytes are requested bytes.
        name: text of each operation; ``sequence``: number that joins a backward node to its forward operation, made
            unique over threads together with ``thread`` (forward) and ``forward_thread`` (backward).
        module: address of the module object whose forward was running, 0 for none.
        stacks: frames, innermost first, of each Python stack.
        mark_text, mark_event, mark_operation, mark_nanoseconds: one row per mark.
        source: what recorded: ``hook`` or ``profiler``.
    """

    block: Column64
    delta: Column64
    operation: Column32
    nanoseconds: Column64
    stack: Column32
    name: tuple[str, ...]
    parent: Column32
    scope: Column32
    sequence: Column64
    thread: Column64
    forward_thread: Column64
    module: Column64
    operation_stack: Column32
    operation_nanoseconds: Column64
    mark_text: tuple[str, ...]
    mark_event: Column64
    mark_operation: Column64
    mark_nanoseconds: Column64
    stacks: tuple[tuple[PythonFrame, ...], ...] = field(default=())
    source: str = "hook"

    def __len__(self) -> int:
        return len(self.delta)

    @property
    def peak(self) -> int:
        """Largest running sum of the deltas, in bytes; 0 for an empty recording."""
        return max(int(np.cumsum(self.delta).max()), 0) if len(self.delta) else 0
