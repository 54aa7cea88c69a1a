"""Which values of a traced program are computed for real, so that code which looks at values goes the right way.

Masks, positions, routing tables, schedules and counters decide branches, loop lengths and shapes. They are small
and come from other known values, so they are *known*: computed by the real kernel. Weights and everything computed
from them are *unknown*: hollow. Three rules:

1. An op on known tensors (or on none) with small outputs runs for real; random floats do not, they are unknown.
2. Where an unknown value meets an op with small integer outputs (``topk``, ``argmax``), or with an output whose shape
   depends on values (``nonzero``), the op runs on a *stand-in*: random numbers of the same shape. So a router of random
   weights spreads tokens over experts as it really does.
3. Reading an unknown number (``.item()``) gives one near 1, none twice; a number that is compared is 1. A
   condition on many is False when it asks whether ``any`` is, else True, and the other way round for a loop that does
   not end. The trace says where values were assumed.

Limits: ``LARGEST_INTEGERS`` and ``LARGEST_FLOATS`` bytes of output; larger values are unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

LARGEST_INTEGERS = 4 << 20
LARGEST_FLOATS = 64 << 10
_LARGEST_RANDOM_STAND_IN = 16 << 20

_VIEWS = frozenset({
    "aten._unsafe_view.default", "aten.lift_fresh.default", "aten.detach.default", "aten.alias.default",
    "aten.lift.default", "aten.set_.source_Storage", "aten.set_.source_Storage_storage_offset",
    "aten.set_.source_Tensor", "aten.set_.default", "aten._conj.default", "aten._neg_view.default",
    "aten.resolve_conj.default", "aten.resolve_neg.default", "aten.detach_.default", "aten.requires_grad_.default",
    "aten._reshape_alias.default", "aten.expand.default", "aten.view.dtype", "aten.as_strided_.default",
    "aten.t_.default", "aten.transpose_.default", "aten.squeeze_.dim", "aten.squeeze_.default",
    "aten.unsqueeze_.default", "aten.swapaxes_.default", "aten.resize_.default_view", "aten.is_same_size.default",
    "aten.unsafe_split.Tensor_view", "aten._nested_view_from_buffer.default",
})  # fmt: skip
_RANDOM = (
    "bernoulli",
    "normal",
    "uniform",
    "exponential",
    "cauchy",
    "geometric",
    "rand",
    "dropout",
    "rrelu",
    "log_normal",
)


@dataclass(frozen=True, slots=True)
class OpFacts:
    """What a schema says of an op.

    ``view``: no bytes of its own. ``mutates``: positions or names of written arguments. ``returns``: for an op that
    only writes, which written argument each output is, else None. ``resizes``: what it writes may take another shape.
    """

    name: str
    view: bool
    mutates: tuple[int | str, ...]
    returns: tuple[int | str, ...] | None
    random: bool
    reads_value: bool
    resizes: bool


def facts_of(func: Any) -> OpFacts:
    """The OpFacts of an overload. Cost: parse of the schema; keep the result."""
    name = str(func)
    schema = func._schema
    written: dict[frozenset[str], int | str] = {}
    mutates: list[int | str] = []
    position = 0
    for argument in schema.arguments:
        where: int | str = argument.name if argument.kwarg_only else position
        position += not argument.kwarg_only
        if argument.alias_info is not None and argument.alias_info.is_write:
            mutates.append(where)
            written[frozenset(argument.alias_info.before_set)] = where
    aliases = [value.alias_info for value in schema.returns]
    returns = [written.get(frozenset(alias.before_set)) if alias is not None else None for alias in aliases]
    only_writes = bool(mutates) and None not in returns
    base = name.split("::")[-1].split(".")[1] if "." in name else name
    return OpFacts(
        name,
        view=bool(getattr(func, "is_view", False)) or name in _VIEWS,
        mutates=tuple(mutates),
        returns=tuple([where for where in returns if where is not None]) if only_writes else None,
        random=torch.Tag.nondeterministic_seeded in func.tags or base.startswith(_RANDOM),
        reads_value=name in ("aten._local_scalar_dense.default", "aten.item.default"),
        resizes=base in ("resize_", "resize_as_") or name.endswith(("out", "_out")),
    )


def is_small(dtype: torch.dtype, nbytes: int) -> bool:
    """Whether a value of that many bytes may be known."""
    return nbytes <= (LARGEST_FLOATS if dtype.is_floating_point or dtype.is_complex else LARGEST_INTEGERS)


def stand_in(tensor: torch.Tensor, generator: torch.Generator, *, positive: bool = False) -> torch.Tensor:
    """A real tensor of the same shape and dtype in place of an unknown one: random, or where large one value repeated.

    Call it with no dispatch mode active. A single number is 1; floats are standard normal (uniform in [0, 1) if
    ``positive``), booleans even odds, integers 0: an index that is in range.
    """
    shape, dtype = tensor.shape, tensor.dtype
    if tensor.numel() == 1 or tensor.numel() * dtype.itemsize > _LARGEST_RANDOM_STAND_IN or dtype.is_complex:
        return torch.ones((), dtype=dtype).expand(shape)
    if dtype is torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    draw = torch.rand if positive else torch.randn
    values = draw(shape, generator=generator).to(dtype)
    return values if tensor.is_contiguous() else torch.empty_like(tensor).copy_(values)
