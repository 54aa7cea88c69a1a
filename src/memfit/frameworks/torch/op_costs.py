"""What each operation of a running step takes: seconds, bytes it must move, floating point operations, and where it came from.

A dispatch mode times every kernel of several passes over the same step; of each the middle time counts. Bytes are those of the
distinct tensors read and written, views counted by what they show, tables that are looked up by the rows taken. Operations that
only make views move nothing and are left out. Cost: the step's own time and about 10 us an operation, each pass.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from memfit.frameworks.torch.operation_words import place
from memfit.ir.recording import PythonFrame

PASSES = 3
_ATTENTION = "_scaled_dot_product"
_LOOKUPS = ("aten.embedding.", "aten.index.", "aten.index_select.", "aten.gather.", "aten.index_put", "aten.scatter")
"""Operations that touch only a part of the largest tensor that they are given."""
_FUSIBLE = ("norm", "softmax", "pad", "mean", "clone", "copy", "threshold")
"""Parts of names of operations that compilers fuse beside those that torch calls pointwise."""


@dataclass(frozen=True)
class OpCost:
    """One operation of a step, in the order in which they ran. ``copy``: it only moves values into another layout;
    ``fusible``: compilers write it into the pass of its neighbours."""

    name: str
    seconds: float
    bytes: int
    flops: float
    copy: bool
    fusible: bool
    line: str
    made: int
    """Bytes of what it wrote."""


class _Recorder(TorchDispatchMode):
    def __init__(self, *, lines: bool) -> None:
        super().__init__()
        self.lines = lines
        self.found: list[OpCost] = []
        self.read: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        start = time.perf_counter()
        out = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        if getattr(func, "is_view", False):
            return out
        read = _tensors((args, kwargs))
        written = _tensors(out)
        places = {t.untyped_storage().data_ptr() for t in read}
        fresh = [t for t in written if t.untyped_storage().data_ptr() not in places]
        name = str(func)
        whole = list(_distinct(read))
        moved = sum(_shown(t) for t in _distinct(fresh))
        if name.startswith(_LOOKUPS) and whole:
            table = max(whole, key=_shown)
            whole = [t for t in whole if t is not table]
            moved += min(_shown(table), moved or sum(_shown(t) for t in whole))
        for tensor in whole:
            size, address = _shown(tensor), tensor.untyped_storage().data_ptr()
            self.read[address] = max(size, self.read.get(address, 0))
            moved += size
        self.found.append(
            OpCost(
                name, seconds, moved, _flops(func, args, kwargs, out, written), _copies(name, args),
                torch.Tag.pointwise in func.tags or any(part in name for part in _FUSIBLE),
                _line() if self.lines else "", sum(_shown(t) for t in fresh),
            )
        )  # fmt: skip
        return out


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided]


def _distinct(tensors: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    seen: set[tuple[int, int, int]] = set()
    for tensor in tensors:
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.numel())
        if key not in seen:
            seen.add(key)
            yield tensor


def _shown(tensor: torch.Tensor) -> int:
    """Bytes of the elements that a tensor shows; broadcast ones once."""
    count = 1
    for extent, step in zip(tensor.shape, tensor.stride(), strict=True):
        count *= extent if step else 1
    return count * tensor.element_size()


def _flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, written: list[torch.Tensor]) -> float:
    packet = func._overloadpacket
    if packet in flop_registry:
        return float(flop_registry[packet](*args, **kwargs, out_val=out))
    if _ATTENTION in str(func) and len(args) >= 2 and isinstance(args[0], torch.Tensor):
        return 4.0 * args[0].numel() * args[1].shape[-2] * (2.5 if "backward" in str(func) else 1.0)
    return float(sum(t.numel() for t in written[:1]))


def _copies(name: str, args: tuple[Any, ...]) -> bool:
    plain = name.startswith(("aten.clone", "aten.copy_", "aten._to_copy", "aten.contiguous"))
    return plain and bool(args) and isinstance(args[0], torch.Tensor) and args[0].numel() > 1


def _line() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        text = place(PythonFrame(code.co_filename, frame.f_lineno, code.co_name))
        if text and not Path(code.co_filename).name.startswith("_python_dispatch"):
            return text
        if frame.f_back is None:
            return ""
        frame = frame.f_back
    return ""


@dataclass(frozen=True)
class StepCosts:
    """The operations of a step; ``least_bytes``: what of parameters, inputs and results any order of them moves once."""

    ops: list[OpCost]
    least_bytes: int


def op_costs(run: Callable[[], Any], kept: Iterable[torch.Tensor] = (), passes: int = PASSES) -> StepCosts:
    """The operations of ``run``, which must do the same each time; it is run ``passes`` + 1 times, once where 0.

    Args:
        kept: tensors that exist before and after each run: parameters, buffers, inputs.
    """
    with _Recorder(lines=True) as first:
        results = _tensors(run())
    before = {tensor.untyped_storage().data_ptr() for tensor in kept}
    made = {t.untyped_storage().data_ptr(): _shown(t) for t in results}
    least = sum(first.read.get(address, 0) for address in before)
    least += sum(size for address, size in made.items() if address not in before)
    timed = []
    for _ in range(passes):
        with _Recorder(lines=False) as recorder:
            run()
        timed.append([op.seconds for op in recorder.found])
    if not timed or any(len(seconds) != len(first.found) for seconds in timed):
        return StepCosts(first.found, least)
    middle = [statistics.median(column) for column in zip(*timed, strict=True)]
    return StepCosts([replace(op, seconds=s) for op, s in zip(first.found, middle, strict=True)], least)
