"""What an op returns, without running it: shapes, strides, dtypes and aliases of its outputs, by op signature.

An op's *signature* is its overload and, of each argument, shape, stride and dtype of a tensor, the value of anything
else that can decide a shape (floats cannot). Models repeat layers, so a few hundred signatures cover thousands of ops;
each is answered once by PyTorch's own ``FakeTensorMode`` (about 1 ms) and from the table afterwards (about 10 us).
Where that answers differently from the CPU kernel, or not at all, ``cpu_layout`` holds the difference.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from memfit.frameworks.torch.cpu_layout import CORRECTIONS
from memfit.frameworks.torch.hollow import storage_bytes

DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException)


@dataclass(frozen=True, slots=True)
class Fresh:
    """An output over a new storage: ``group`` numbers the new storages of one call, ``nbytes`` is the storage's."""

    group: int
    nbytes: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    offset: int


@dataclass(frozen=True, slots=True)
class Alias:
    """An output that is the ``index``-th tensor argument ``itself`` (of a new ``shape``), or a view of its storage."""

    index: int
    itself: bool
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Constant:
    """An output that is no tensor."""

    value: Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """Outputs of an op of one signature, flat, with the function that builds the return value from the flat list."""

    outputs: tuple[Fresh | Alias | Constant, ...]
    rebuild: Callable[[list[Any]], Any]
    groups: tuple[int, ...]
    """Bytes of each new storage."""

    @property
    def nbytes(self) -> int:
        """Bytes of all new storages."""
        return sum(self.groups)


def signature_of(value: Any) -> Any:
    """The part of an argument that decides shapes, hashable.

    Raises:
        TypeError: it cannot be described (a sparse tensor, an unhashable object).
    """
    kind = type(value)
    if kind is float:
        return float
    if kind is bool:
        return "true" if value else "false"
    if kind in (int, torch.dtype, str) or value is None:
        return value
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.device.type != "cpu":
            raise TypeError(f"a {value.layout} tensor on {value.device}")
        return (value.shape, value.stride(), value.dtype)
    if kind in (list, tuple) or isinstance(value, (list, tuple)):
        return tuple([signature_of(item) for item in value])
    if isinstance(value, torch.Generator):
        return None
    hash(value)
    return value


def flat_tensors(args: Any, kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """All tensors among the arguments, in order, lists opened."""
    found: list[torch.Tensor] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend([item for item in value if isinstance(item, torch.Tensor)])
    return found


@cache
def _mode() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch from logging a traceback for an op that it has no answer for; memfit has."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _to_fake(mode: FakeTensorMode, value: Any, seen: list[torch.Tensor], by_storage: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        with mode:
            key = value.untyped_storage()._cdata
            base = by_storage.get(key)
            if base is None:
                size = value.untyped_storage().nbytes() // value.dtype.itemsize
                base = by_storage[key] = torch.empty(max(size, 0), dtype=value.dtype, device="cpu")
            if base.dtype == value.dtype:
                fake = base.as_strided(value.shape, value.stride(), value.storage_offset())
            else:
                fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cpu")
        seen.append(fake)
        return fake
    if isinstance(value, (list, tuple)):
        return type(value)([_to_fake(mode, item, seen, by_storage) for item in value])
    return value


def _flatten(value: Any, flat: list[Any]) -> Callable[[list[Any]], Any]:
    """Append the leaves of a return value to ``flat``; the result puts a list of replacements back in its shape."""
    if isinstance(value, (list, tuple)):
        parts = [_flatten(item, flat) for item in value]
        kind = list if isinstance(value, list) else tuple
        return lambda leaves: kind([part(leaves) for part in parts])
    position = len(flat)
    flat.append(value)
    return lambda leaves: leaves[position]


def recipe_of(outputs: Any, inputs: list[torch.Tensor]) -> Recipe:
    """The Recipe behind one call's real or fake ``outputs``, whose tensor arguments were ``inputs``."""
    flat: list[Any] = []
    rebuild = _flatten(outputs, flat)
    storage_of_input: dict[int, int] = {}
    for index, tensor in enumerate(inputs):
        if tensor.layout is torch.strided:
            storage_of_input.setdefault(tensor.untyped_storage()._cdata, index)
    groups: dict[int, int] = {}
    sizes: list[int] = []
    rows: list[Fresh | Alias | Constant] = []
    for leaf in flat:
        if not isinstance(leaf, torch.Tensor):
            rows.append(Constant(leaf))
            continue
        same = next((index for index, tensor in enumerate(inputs) if tensor is leaf), None)
        storage = leaf.untyped_storage()
        key = storage._cdata
        shape, stride, offset = tuple(leaf.shape), tuple(leaf.stride()), int(leaf.storage_offset())
        if same is not None or key in storage_of_input:
            index = storage_of_input[key] if same is None else same
            rows.append(Alias(index, same is not None, shape, stride, offset))
            continue
        if key not in groups:
            groups[key] = len(sizes)
            sizes.append(max(storage.nbytes(), storage_bytes(shape, stride, leaf.dtype.itemsize, offset)))
        rows.append(Fresh(groups[key], sizes[groups[key]], shape, stride, leaf.dtype, offset))
    return Recipe(tuple(rows), rebuild, tuple(sizes))


def infer(func: Any, args: Any, kwargs: dict[str, Any]) -> Recipe:
    """The Recipe of ``func`` on such arguments, by PyTorch's fake tensors. Call it with no dispatch mode active.

    Raises:
        DataDependentOutputException, DynamicOutputShapeException: the values decide the shape (``DATA_DEPENDENT``).
        Exception: whatever the op's own shape function raises, also for arguments that the op would take.
    """
    correction = CORRECTIONS.get(str(func))
    mode = _mode()
    seen: list[torch.Tensor] = []
    by_storage: dict[int, torch.Tensor] = {}
    fake_args = [_to_fake(mode, value, seen, by_storage) for value in args]
    fake_kwargs = {name: _to_fake(mode, value, seen, by_storage) for name, value in kwargs.items()}
    if correction is not None:
        with mode:
            corrected = correction(func, fake_args, fake_kwargs)
        if corrected is not NotImplemented:
            return recipe_of(corrected, seen)
    with torch._C._DisableAutocast(), _quiet(), mode:
        outputs = func(*fake_args, **fake_kwargs)
    return recipe_of(outputs, seen)
