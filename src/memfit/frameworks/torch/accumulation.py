"""Sums that PyTorch writes into their first operand, which it does not do while a dispatch mode looks on.

Two of them matter for memory, and both ask ``isTensorSubclassLike``, which says yes to every tensor under any mode:

* where a value is used twice, autograd's engine adds its gradients up, in place if nobody else holds the first one;
* ``linear`` adds the bias to a product of more than two dimensions that it had to copy together.

The tape knows better: an ``add`` called from C++, whose first operand has no holder but the caller, is an ``add_``. The
number of references that "no other holder" means is written down nowhere: it is measured once on a case of each.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ADD = torch.ops.aten.add.Tensor
References = tuple[int, int, int]


def adds_in_place(func: Any, args: Any, kwargs: Any) -> str:
    """Say "gradient" or "bias" where this op would write into its first operand without a mode, else "".

    Call it first thing in the mode's handler, with the handler's own ``args``. Cost: below 1 us for other ops.
    """
    if func is not _ADD or kwargs:
        return ""
    kind = _kind(args)
    if not kind or not _is_dense(args[0]):
        return ""
    alone = sole_holder()[kind]
    return kind if all(mine <= bound for mine, bound in zip(_references(args), alone, strict=True)) else ""


def _kind(args: Any) -> str:
    first, second = args
    if type(first) is not torch.Tensor or not isinstance(second, torch.Tensor):
        return ""
    if first.layout is not torch.strided or second.layout is not torch.strided:
        return ""
    if torch._C._current_autograd_node() is not None and not torch.is_grad_enabled():
        return "gradient" if first.shape == second.shape else ""
    return "bias" if first.dim() > 2 and second.dim() == 1 and first.shape[-1] == second.shape[0] else ""


def _references(args: Any) -> References:
    return args[0]._use_count(), torch._C._storage_Use_Count(args[0].untyped_storage()._cdata), sys.getrefcount(args[0])


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous() or bool(torch.ops.aten.is_non_overlapping_and_dense.default(tensor))


class _Counts(TorchDispatchMode):
    """Notes the references of the adds that it sees, by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, References] = {"gradient": (0, 0, 0), "bias": (0, 0, 0)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ADD:
            kind = _kind(args)
            if kind:
                self.found[kind] = _references(args)
        return func(*args, **(kwargs or {}))


@cache
def sole_holder() -> dict[str, References]:
    """References to an operand that only the caller in C++ holds, by kind. First call it outside of a handler."""
    with torch.utils._python_dispatch._disable_current_modes(), torch.enable_grad():
        start = torch.ones(4, requires_grad=True)
        value = start * 1.0
        loss = ((value * 2.0).sum() + (value * 3.0).sum()).reshape(())
        counts = _Counts()
        with counts:
            torch.autograd.grad(loss, start)
            with torch.no_grad():
                torch.nn.functional.linear(torch.ones(2, 3, 4).transpose(0, 1), torch.ones(5, 4), torch.ones(5))
    return counts.found
