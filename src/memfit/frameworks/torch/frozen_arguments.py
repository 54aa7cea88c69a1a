"""Keep the arguments of a call so that it can be made again, whatever happens to them in between.

``freeze`` walks lists, tuples, dicts, named tuples, dataclasses and the key/value caches of transformers, and replaces
every tensor by a handle; ``Frozen.thaw`` builds fresh arguments with the same sharing (``query is key`` stays true).
Tensors come back cut off from the graph that made them, with the same ``requires_grad``.

Other objects are passed as they are; those with attributes are listed in ``Frozen.holders`` so that the caller can
rewind what the call changes in them. A key/value cache is copied in its state before the call and holds other layers'
tensors weakly: holding them would keep alive what recomputation is to free.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

Keep = Callable[[torch.Tensor], Callable[[], torch.Tensor]]
_Thaw = Callable[[dict[int, Any]], Any]


class ReplayError(RuntimeError):
    """A forward cannot be run again with the same result. ``why``, and the ``name`` of the module where known."""

    def __init__(self, why: str, name: str = "") -> None:
        super().__init__(f"module {name or '(unnamed)'} cannot be recomputed exactly: {why}")
        self.why, self.name = why, name


@dataclasses.dataclass(slots=True)
class Frozen:
    """Arguments of one call. ``versions``: version counters of its tensors when frozen, for ``changed``."""

    thaw_all: _Thaw
    tensors: list[tuple[weakref.ref[torch.Tensor], int]]
    holders: list[Any]

    def thaw(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Fresh positional and keyword arguments."""
        result: tuple[tuple[Any, ...], dict[str, Any]] = self.thaw_all({})
        return result

    @property
    def devices(self) -> set[torch.device]:
        """Devices of its tensors that are alive."""
        return {tensor.device for reference, _ in self.tensors if (tensor := reference()) is not None}

    def changed(self) -> set[int]:
        """Positions, in walking order, of the tensors written to in place since."""
        return {
            number
            for number, (reference, version) in enumerate(self.tensors)
            if (tensor := reference()) is not None and tensor._version != version
        }


def freeze(args: Sequence[Any], kwargs: Mapping[str, Any], keep: Keep, copied: frozenset[int] | None) -> Frozen:
    """Keep a call's arguments.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
        keep: how a tensor is kept; gives back a function that returns it.
        copied: positions, in walking order, of the tensors that the call writes to and that must be kept as copies;
            ``None``: not known yet, copy all.

    Cost: one visit per object in the containers, one copy of each tensor named in ``copied``.
    """
    walker = _Walker(keep, copied)
    thaw_args = walker.visit(list(args))
    thaw_kwargs = walker.visit(dict(kwargs))
    return Frozen(lambda memo: (tuple(thaw_args(memo)), thaw_kwargs(memo)), walker.tensors, walker.holders)


class _Walker:
    def __init__(self, keep: Keep, copied: frozenset[int] | None) -> None:
        self.keep, self.copied = keep, copied
        self.tensors: list[tuple[weakref.ref[torch.Tensor], int]] = []
        self.holders: list[Any] = []
        self.memo: dict[int, _Thaw] = {}
        self.alive: list[Any] = []

    def visit(self, value: Any, weak: bool = False) -> _Thaw:
        if id(value) in self.memo:
            return self.memo[id(value)]
        build = self._tensor(value, weak) if isinstance(value, torch.Tensor) else self._other(value, weak)
        number = len(self.alive)
        self.alive.append(value)

        def once(memo: dict[int, Any]) -> Any:
            if number not in memo:
                memo[number] = build(memo)
            return memo[number]

        self.memo[id(value)] = once
        return once

    def _tensor(self, value: torch.Tensor, weak: bool) -> _Thaw:
        if isinstance(value, nn.Parameter):
            return lambda memo: value
        if weak:
            return _weakly(value)
        position = len(self.tensors)
        self.tensors.append((weakref.ref(value), value._version))
        wants_gradient = value.requires_grad
        if self.copied is None or position in self.copied:
            get = self.keep(value.detach().clone())
            # a clone in the graph: an in-place op may not write to a leaf
            return lambda memo: get().detach().requires_grad_(wants_gradient).clone()
        get = self.keep(value.detach())
        return lambda memo: get().detach().requires_grad_(wants_gradient)

    def _other(self, value: Any, weak: bool) -> _Thaw:
        kind = type(value)
        if kind in (list, set):
            items = [self.visit(item, weak) for item in value]
            return lambda memo: kind(item(memo) for item in items)
        if isinstance(value, tuple):
            items = [self.visit(item, weak) for item in value]
            if hasattr(value, "_fields"):
                return lambda memo: kind(*(item(memo) for item in items))
            return lambda memo: kind(item(memo) for item in items)
        if kind is dict:
            pairs = [(key, self.visit(item, weak)) for key, item in value.items()]
            return lambda memo: {key: item(memo) for key, item in pairs}
        if isinstance(value, dict) and dataclasses.is_dataclass(value):  # ModelOutput of transformers and diffusers
            pairs = [(key, self.visit(item, weak)) for key, item in value.items()]
            return lambda memo: kind(**{key: item(memo) for key, item in pairs})
        if _is_cache(value):
            return self._copy(value, weak=True)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            if hasattr(value, "__dict__"):
                return self._copy(value, weak)
            return lambda memo: value
        if hasattr(value, "__dict__") and not callable(value) and not isinstance(value, type):
            self.holders.append(value)
        return lambda memo: value

    def _copy(self, value: Any, weak: bool) -> _Thaw:
        pairs = [(key, self.visit(item, weak)) for key, item in vars(value).items()]
        kind: Any = type(value)

        def thaw(memo: dict[int, Any]) -> Any:
            made = object.__new__(kind)  # the value itself is not kept: a cache would keep every layer's tensors
            vars(made).update({key: item(memo) for key, item in pairs})
            return made

        return thaw


def _weakly(value: torch.Tensor) -> _Thaw:
    reference = weakref.ref(value)
    size, stride, dtype = tuple(value.shape), value.stride(), value.dtype

    def thaw(memo: dict[int, Any]) -> torch.Tensor:
        alive = reference()
        if alive is not None:
            return alive.detach()
        return torch.empty_strided(size, stride, dtype=dtype, device="meta")

    return thaw


def _is_cache(value: Any) -> bool:
    return any(base.__module__ == "transformers.cache_utils" for base in type(value).__mro__)
