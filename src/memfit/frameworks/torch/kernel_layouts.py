"""Fake tensors laid out as the kernels lay out their results, where PyTorch's own description of an op says otherwise.

A fake kernel is an op's description, and some are wrong about strides: ``angle`` of complex numbers, batch norm of a
transposed series and others write contiguous results, their fakes keep the input's layout. A trace then carries layouts
that the program never has, and what depends on them differs in the last bit: which loop a kernel takes, whether a reshape
copies, in which order random numbers fall. ``measure`` runs every op and sees its true layout; the program is traced again
with what it found, until the two agree. Nothing is traced twice where they agree at once, as nearly all programs do.
Cost: for the ops in question, one signature a call.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

Laid = tuple[str, list[tuple[int, ...]]]
"""An op's name, and the strides of its tensor results in order."""


def digest(text: str) -> str:
    """A short name of a text."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def tensor_text(value: torch.Tensor) -> str:
    """What a kernel's choice of loop and layout depends on: dtype, shape, strides, whether conjugate."""
    conjugate = "conjugate" if value.is_conj() else ""
    return f"{value.dtype}{tuple(value.shape)}{tuple(value.stride())}{conjugate}"


def call_signature(func: Any, args: Any, kwargs: Any) -> str:
    """The signature that ``measure`` gives to the node of this call."""

    def told(value: Any) -> Any:
        return tensor_text(value) if isinstance(value, torch.Tensor) else value

    texts = pytree.tree_map(told, (tuple(args), dict(kwargs or {})))
    return digest(f"{func} {texts}")


def strides_of(results: list[torch.Tensor]) -> list[tuple[int, ...]]:
    """The strides of real results, in order; empty where one has none."""
    plain = all(real.layout is torch.strided for real in results)
    return [tuple(real.stride()) for real in results] if plain else []


def is_mislaid(described: list[torch.Tensor], strides: list[tuple[int, ...]]) -> bool:
    """Whether real strides differ from the described ones in a dimension of more than one element."""
    if len(strides) != len(described):
        return False
    return any(
        said.dim() == len(real)
        and said.numel() > 1
        and any(a != b and n > 1 for a, b, n in zip(real, said.stride(), said.shape, strict=True))
        for real, said in zip(strides, described, strict=True)
    )


@contextlib.contextmanager
def as_kernels_lay(known: Mapping[str, Laid]) -> Iterator[None]:
    """While entered, fake results of the calls in ``known`` (by signature) have the strides given there."""
    if not known:
        yield
        return
    names = {name for name, _ in known.values()}
    original = FakeTensorMode.__torch_dispatch__

    def dispatch(mode: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = original(mode, func, types, args, kwargs)
        found = known.get(call_signature(func, args, kwargs)) if str(func) in names else None
        if found is None:
            return out
        leaves, spec = pytree.tree_flatten(out)
        strides = iter(found[1])
        with mode:
            laid = [_laid(leaf, next(strides)) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        return pytree.tree_unflatten(laid, spec)

    FakeTensorMode.__torch_dispatch__ = dispatch  # type: ignore[method-assign]
    try:
        yield
    finally:
        FakeTensorMode.__torch_dispatch__ = original  # type: ignore[method-assign]


def _laid(fake: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    if fake.stride() == tuple(stride) or fake.dim() != len(stride):
        return fake
    return torch.empty_strided(fake.shape, stride, dtype=fake.dtype, device=fake.device)
