"""In-place ops on views with holes, written so that what they leave keeps its strides when the program is made functional.

Functionalization turns ``gates[:, :8].sigmoid_()`` into ``sigmoid(gates[:, :8])``, whose result is contiguous. The next
kernel then walks 72 numbers at once where eager walks nine rows of eight, and vector and scalar code of one function
differ in the last bit. Written as ``view.copy_(sigmoid(view))`` the result keeps the view's strides, and every kernel
after it sees what it sees in eager. The copy is an op of our own, which takes the bytes that the view spans; torch's
functional ``copy`` would copy the whole storage that the view lies in, and keep what it overwrites alive to do so.
Cost: a copy of the bytes that the view spans, for each such op.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

_library = torch.library.Library("memfit", "FRAGMENT")
_library.define("laid_out(Tensor source, SymInt[] size, SymInt[] stride, ScalarType dtype) -> Tensor")


def _laid_out(source: torch.Tensor, size: list[int], stride: list[int], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device=source.device).copy_(source)


def _fake(source: torch.Tensor, size: list[int], stride: list[int], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device=source.device)


_library.impl("laid_out", _laid_out, "CompositeExplicitAutograd")
torch.library.register_fake("memfit::laid_out", _fake, lib=_library)


def _copy(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> Any:
    if target.device != source.device or any(
        stride == 0 and size > 1 for stride, size in zip(target.stride(), target.shape, strict=True)
    ):
        return NotImplemented
    return torch.ops.memfit.laid_out(source, target.shape, target.stride(), target.dtype)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten.copy.default: _copy}


def keep_strides(module: GraphModule) -> GraphModule:
    """``module``, a trace with its mutations, with in-place ops on views with holes split into op and copy."""
    changed = False
    for node in list(module.graph.nodes):
        functional = _functional_form(node)
        if functional is None:
            continue
        changed = True
        view = node.args[0]
        with module.graph.inserting_before(node):
            result = module.graph.call_function(functional, node.args, node.kwargs)
            copied = module.graph.call_function(torch.ops.aten.copy_.default, (view, result))
        copied.meta = dict(node.meta)
        node.replace_all_uses_with(copied)
        module.graph.erase_node(node)
    if changed:
        module.recompile()
    return module


def _functional_form(node: Node) -> torch._ops.OpOverload | None:
    """The out-of-place op of an in-place one that writes a view with holes, or None where nothing is to be done."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    name = target._schema.name.partition("::")[2]
    if not name.endswith("_") or name in _KEPT or not node.args or not isinstance(node.args[0], Node):
        return None
    value = node.args[0].meta.get("val")
    if not isinstance(value, torch.Tensor) or _dense(value):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    form = getattr(packet, target._overloadname, None) if packet is not None else None
    if form is None or [str(returned.type) for returned in form._schema.returns] != ["Tensor"]:
        return None
    return form  # type: ignore[no-any-return]


def _dense(value: torch.Tensor) -> bool:
    """Whether the elements fill a range of bytes without holes, in some order of the dimensions."""
    expected = 1
    for stride, size in sorted(
        (stride, size) for stride, size in zip(value.stride(), value.shape, strict=True) if size > 1
    ):
        if stride != expected:
            return False
        expected *= size
    return True


_KEPT = frozenset(
    ["copy_", "fill_", "zero_", "detach_", "requires_grad_", "resize_", "set_", "as_strided_", "squeeze_", "unsqueeze_"]
) | {"transpose_", "t_", "bernoulli_", "normal_", "uniform_", "random_", "exponential_"}
