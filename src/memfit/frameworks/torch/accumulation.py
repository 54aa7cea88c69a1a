"""Results that PyTorch writes into memory that it has, which it does not do while a dispatch mode looks on.

Three of them ask ``isTensorSubclassLike``, which says yes to every tensor under any mode:

* where a value is used twice, autograd's engine adds its gradients up, in place if nobody else holds the first one;
* ``linear`` adds the bias to a product of more than two dimensions that it had to copy together;
* the backward of ``x[index]``, ``gather``, ``max(dim)`` and the like fills zeros that it just made.

And a sparse gradient becomes ``.grad`` as it is where nobody else holds it, but a mode does, so that it is copied.

The tape knows better: one of these called from C++, whose first operand has no holder but the caller, is in place. The
number of references that "no other holder" means is written down nowhere: it is measured once on a case of each.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ADD = torch.ops.aten.add.Tensor
_FILLS = {
    torch.ops.aten.index_put.default: torch.ops.aten.index_put_.default,
    torch.ops.aten.index_add.default: torch.ops.aten.index_add_.default,
    torch.ops.aten.scatter_add.default: torch.ops.aten.scatter_add_.default,
    torch.ops.aten.scatter.src: torch.ops.aten.scatter_.src,
    torch.ops.aten.scatter.value: torch.ops.aten.scatter_.value,
    torch.ops.aten.masked_scatter.default: torch.ops.aten.masked_scatter_.default,
    torch.ops.aten.put.default: torch.ops.aten.put_.default,
}
_CLONE = torch.ops.aten.clone.default
ASKED = frozenset([_ADD, _CLONE, *_FILLS])  # ops that the functions of this module may say something about
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


def fills_in_place(func: Any, args: Any) -> Any:
    """The in-place op that a backward node would have called without a mode on zeros that it made, else None.

    Call it as ``adds_in_place``.
    """
    form = _FILLS.get(func)
    if form is None or torch._C._current_autograd_node() is None or torch.is_grad_enabled():
        return None
    alone = sole_holder()["fill"]
    return form if all(mine <= bound for mine, bound in zip(_references(args), alone, strict=True)) else None


def keeps_sparse(func: Any, args: Any) -> torch.Tensor | None:
    """The sparse gradient over the same memory that ``.grad`` would be without a mode, where this op copies it.

    Call it as ``adds_in_place``.
    """
    if func is not _CLONE or args[0].layout is not torch.sparse_coo or not _accumulates():
        return None
    counts = args[0]._use_count(), sys.getrefcount(args[0])
    alone = sole_holder()["sparse"]
    if counts[0] > alone[0] or counts[1] > alone[2]:
        return None
    with torch.utils._python_dispatch._disable_current_modes():
        indices, values = args[0]._indices(), args[0]._values()
        if not (indices.is_contiguous() and values.is_contiguous()):
            return None
        return torch.sparse_coo_tensor(indices, values, args[0].shape, check_invariants=False)


def _accumulates() -> bool:
    node = torch._C._current_autograd_node()
    return node is not None and node.name() == "torch::autograd::AccumulateGrad" and not torch.is_grad_enabled()


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
        self.found: dict[str, References] = dict.fromkeys(("gradient", "bias", "fill", "sparse"), (0, 0, 0))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ADD:
            kind = _kind(args)
            if kind:
                self.found[kind] = _references(args)
        elif func in _FILLS:
            self.found["fill"] = _references(args)
        elif func is _CLONE and _accumulates():
            self.found["sparse"] = args[0]._use_count(), 0, sys.getrefcount(args[0])
        return func(*args, **(kwargs or {}))


@cache
def sole_holder() -> dict[str, References]:
    """References to an operand that only the caller in C++ holds, by kind. First call it outside of a handler."""
    with torch.utils._python_dispatch._disable_current_modes(), torch.enable_grad():
        start = torch.ones(4, requires_grad=True)
        value = start * 1.0
        loss = ((value * 2.0).sum() + (value * 3.0).sum()).reshape(())
        picked = value[torch.tensor([0, 2])].sum()
        counts = _Counts()
        with counts:
            torch.autograd.grad(loss, start, retain_graph=True)
            torch.autograd.grad(picked, start)
            torch.nn.functional.embedding(
                torch.tensor([0]), torch.ones(2, 2, requires_grad=True), sparse=True
            ).sum().backward()
            with torch.no_grad():
                torch.nn.functional.linear(torch.ones(2, 3, 4).transpose(0, 1), torch.ones(5, 4), torch.ones(5))
    return counts.found
