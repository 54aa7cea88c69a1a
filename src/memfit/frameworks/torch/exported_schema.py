"""What an operator of a ``.pt2`` file does to memory, asked of its own schema; and which operators may be called at all.

Where a schema says "may be a view" (reshape, contiguous, to), the operator is run once on tensors without memory, at the
sizes that the exporter saw, and its result's storage is looked at.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from memfit.frameworks.torch.exported_arguments import LIST, Ref, filled

_SYMBOLIC = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "pow", "truediv", "getitem", "eq", "ne", "lt", "le", "gt",
                 "ge", "and_", "or_", "not_", "pos", "abs")
}  # fmt: skip
"""Operators on sizes; nothing else of Python's is called for a file."""
_MATH = {"sym_max": torch.sym_max, "sym_min": torch.sym_min, "sym_not": torch.sym_not, "sym_float": torch.sym_float,
         "sym_int": torch.sym_int, "sym_ite": torch.sym_ite, "sym_sum": torch.sym_sum}  # fmt: skip
_HIGHER = ("cond", "while_loop", "wrap_with_set_grad_enabled", "wrap_with_autocast")
_CALLABLE = ("aten", "prims", "quantized_decomposed")
_FILES = ("from_file", "_from_file")
_OWN = (
    torch._ops._OpNamespace, torch._ops._HigherOrderNamespace, torch._ops.OpOverloadPacket, torch._ops.OpOverload,
    torch._ops.HigherOrderOperator,
)  # fmt: skip
CHECKS = ("torch.ops.aten._assert_tensor_metadata.default",)
"""Checks of what the file's types say already."""


def short_name(target: str) -> str:
    """``torch.ops.aten.add.Tensor`` -> ``add.Tensor``; other namespaces stay in front: ``mylib::op.default``."""
    if target.startswith("torch.ops."):
        space, _, rest = target.removeprefix("torch.ops.").partition(".")
        return rest if space == "aten" else f"{space}::{rest}"
    return target.rpartition(".")[0].lstrip("_") + "::" + target.rpartition(".")[2]


def callable_of(target: str) -> Any:
    """What to call for a target of the file; None where it is not registered, or nothing that a file may ask for."""
    space, _, name = target.rpartition(".")
    if space == "_operator":
        return _SYMBOLIC.get(name)
    if space in ("torch", "math", "torch.sym_max", "torch.sym_min"):
        return _MATH.get(name)
    if not target.startswith("torch.ops."):
        return None
    found: Any = torch.ops
    for part in target.removeprefix("torch.ops.").split("."):
        if not hasattr(found, part):
            return None
        found = getattr(found, part)
        if not isinstance(found, _OWN):
            return None
    if isinstance(found, torch._ops.HigherOrderOperator):
        return found if found.name() in _HIGHER else None
    return (
        found if isinstance(found, torch._ops.OpOverload) and found._schema.name.split("::")[-1] not in _FILES else None
    )


def memory_of(
    call: Any, positional: tuple[Any, ...], keywords: tuple[tuple[str, Any], ...], hollow: Sequence[Any]
) -> tuple[str, int]:
    """(what ``ir.ops.aten`` calls it, the input that is shared or written).

    Args:
        call: from ``callable_of``.
        positional, keywords: templates of its arguments.
        hollow: inputs as tensors without memory, or numbers.
    """
    if isinstance(call, torch._ops.HigherOrderOperator):
        return "pure", 0
    if not isinstance(call, torch._ops.OpOverload):
        return ("pure", 0) if call is not None else ("", 0)
    if call.namespace not in _CALLABLE:
        return "", 0
    schema = call._schema
    given = dict(zip((argument.name for argument in schema.arguments), positional, strict=False)) | dict(keywords)
    written = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if written:
        value = given.get(written[0])
        return ("writes", value.index) if len(written) == 1 and isinstance(value, Ref) else ("", 0)
    values = {a.name: given.get(a.name, a.default_value) for a in schema.arguments}
    if torch.Tag.nondeterministic_seeded in call.tags and not _draws_nothing(values):
        return "random", 0
    shared = [a.name for a in schema.arguments if a.alias_info is not None]
    if not shared:
        return "pure", 0
    value = given.get(shared[0])
    if isinstance(value, tuple) and value[:1] == (LIST,):
        return "", 0
    if not isinstance(value, Ref):
        return "", 0
    return ("view" if _is_view(call, positional, keywords, hollow, value.index) else "pure"), value.index


def _draws_nothing(given: Mapping[str, Any]) -> bool:
    """Dropout that is turned off."""
    return (
        any(given.get(name) is False for name in ("train", "training")) or given.get("dropout_p", given.get("p")) == 0
    )


def _is_view(
    call: Any, positional: tuple[Any, ...], keywords: tuple[tuple[str, Any], ...], hollow: Sequence[Any], source: int
) -> bool:
    try:
        made = call(
            *(filled(template, hollow) for template in positional),
            **{name: filled(template, hollow) for name, template in keywords},
        )
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
        return True
    first = made[0] if isinstance(made, (list, tuple)) else made
    return bool(first.untyped_storage()._cdata == hollow[source].untyped_storage()._cdata)
