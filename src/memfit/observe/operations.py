"""Which operation an event is shown under, with its module and line.

The recording holds trees: ``aten::linear`` calls ``aten::addmm`` calls ``aten::empty``. Shown is the outermost
operation that is a kernel of its own (a composite one only calls others), which is the level at which a projection sees
ops. A backward node leads back to the forward operation that made it, by autograd's sequence number: the last one that
began with that number on the node's forward thread. Cost: O(operations).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from memfit.ir.recording import PythonFrame, Recording, Scope


@dataclass(frozen=True, slots=True)
class Shown:
    """How an operation is shown. ``row``: its row in the recording; ``backward``, ``optimizer``: where it runs."""

    row: int
    name: str
    module: str
    line: str
    backward: bool = False
    optimizer: bool = False


@dataclass(frozen=True)
class Words:
    """What only the framework knows: names of modules by address, which operations are composite or an optimizer's,
    how a name is written, and where a frame stands for a reader (empty: pass over it).
    """

    modules: Mapping[int, str]
    is_composite: Callable[[str], bool]
    is_optimizer: Callable[[str], bool]
    op_name: Callable[[str], str]
    place: Callable[[PythonFrame], str]


def shown_operations(recording: Recording, words: Words) -> list[Shown]:
    """For every operation of the recording, the one it is shown under."""
    lines = [_line(stack, words) for stack in recording.stacks]
    forward: dict[tuple[int, int], tuple[str, str]] = {}
    places: list[tuple[str, str]] = []
    last_node = ("", "")
    settled: list[bool] = []
    result: list[Shown] = []
    for row, name in enumerate(recording.name):
        parent, scope = int(recording.parent[row]), int(recording.scope[row])
        sequence = int(recording.sequence[row])
        stack = int(recording.operation_stack[row])
        own = words.modules.get(int(recording.module[row]), ""), lines[stack] if stack >= 0 else ""
        backward = scope in (Scope.BACKWARD, Scope.AFTER_NODE) or (parent >= 0 and result[parent].backward)
        optimizer = (scope == Scope.USER and words.is_optimizer(name)) or (parent >= 0 and result[parent].optimizer)
        if scope == Scope.BACKWARD:
            place = own if own[0] else forward.get((int(recording.forward_thread[row]), sequence), own)
        elif scope == Scope.AFTER_NODE:
            place = last_node
        elif own[0] or parent < 0:  # a module runs: forward, or recomputed inside the backward pass
            place = own
        else:
            place = places[parent]
        if scope == Scope.FUNCTION and sequence >= 0:
            forward[int(recording.thread[row]), sequence] = place
        if scope == Scope.BACKWARD:
            last_node = place
        places.append(place)
        kernel = scope in (Scope.FUNCTION, Scope.AFTER_NODE) and "::" in name and not words.is_composite(name)
        if parent >= 0 and settled[parent]:
            settled.append(True)
            result.append(result[parent])
        else:
            settled.append(kernel)
            result.append(Shown(row, words.op_name(name), *place, backward, optimizer))
    return result


def _line(stack: tuple[PythonFrame, ...], words: Words) -> str:
    for frame in stack:
        place = words.place(frame)
        if place:
            return place
    return ""
