"""Gradients that autograd adds up in place, which it does not do while a dispatch mode looks on.

Where a value is used twice, the engine sums its gradients: into the first one if nobody else holds it, else into a new
tensor. Under any dispatch mode it always takes a new tensor (``isTensorSubclassLike`` says yes to all). The tape knows
better: an ``add`` that the engine calls, whose first operand has no holder but the engine, is an ``add_``. The number
of references that "no other holder" means is not written down anywhere, so it is measured once on a case that is one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ADD = torch.ops.aten.add.Tensor


def adds_in_place(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether this op is the engine's sum of two gradients and, without a mode, would write into the first one.

    Call it first thing in the mode's handler, with the handler's own ``args``. Cost: below 1 us for other ops.
    """
    if func is not _ADD or kwargs or torch._C._current_autograd_node() is None or torch.is_grad_enabled():
        return False
    first, second = args
    if type(first) is not torch.Tensor or type(second) is not torch.Tensor or first.shape != second.shape:
        return False
    if first.layout is not torch.strided or second.layout is not torch.strided or not _is_dense(first):
        return False
    tensor, storage = sole_holder()
    return first._use_count() <= tensor and torch._C._storage_Use_Count(first.untyped_storage()._cdata) <= storage


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense.default(tensor)


class _Counts(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: tuple[int, int] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ADD and torch._C._current_autograd_node() is not None:
            first, _ = args
            self.found = first._use_count(), torch._C._storage_Use_Count(first.untyped_storage()._cdata)
        return func(*args, **(kwargs or {}))


@cache
def sole_holder() -> tuple[int, int]:
    """References to a gradient, and to its storage, that only the engine holds. Call it first outside of any handler."""
    with torch.utils._python_dispatch._disable_current_modes(), torch.enable_grad():
        start = torch.ones(4, requires_grad=True)
        value = start * 1.0
        loss = ((value * 2.0).sum() + (value * 3.0).sum()).reshape(())
        counts = _Counts()
        with counts:
            torch.autograd.grad(loss, start)
    return counts.found or (0, 0)
