"""What a forward reads besides its arguments, so that running it again gives the same bits and leaves no trace.

Three kinds of state, each saved at the first run and replayed at the second::

    random     CPU and device generators, Python's and NumPy's      kept only where the forward drew from them
    ambient    autocast, attention back ends                        entered again around the second run
    holders    buffers and Python attributes that the forward       the old values stand there during the second run,
               changed, in any submodule or argument object         the present ones afterwards

``torch.utils.checkpoint`` replays the first two. Without the third a recomputed BatchNorm counts its batch twice, a
recomputed spectral norm iterates twice, and a module that appends to a list of its own appends twice.

What changes is found by looking, not by type: every attribute is compared before and after by identity, every buffer by
version counter, and in the first call of each module by value too, because ``native_batch_norm`` changes its running
statistics without counting it. Cost per call: one shallow dict copy per submodule, a copy of the buffers that change.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_MISSING: Any = object()
_NOT_WATCHED = frozenset({"_parameters", "_buffers", "_modules", "forward"})
_CONTAINERS = (list, dict, set, deque, OrderedDict)


def _cpu_state() -> bytes:
    return torch.get_rng_state().numpy().tobytes()


@dataclass(slots=True)
class RandomState:
    """State of every generator that a forward may draw from. ``None``: not drawn from."""

    cpu: bytes | None  # no tensor: what a step keeps of it must not count among the step's tensors
    devices: dict[int, torch.Tensor]
    python: Any
    numpy: Any

    @staticmethod
    def now(devices: Sequence[int] = ()) -> RandomState:
        """The present state of the CPU, the CUDA ``devices``, Python's and NumPy's global generator."""
        numpy = sys.modules.get("numpy")
        return RandomState(
            _cpu_state(),
            {index: torch.cuda.get_rng_state(index) for index in devices},
            random.getstate(),
            numpy.random.get_state() if numpy is not None else None,
        )

    def drawn(self) -> RandomState | None:
        """Only the generators whose state has changed since; None where none has."""
        cpu = self.cpu if self.cpu is not None and self.cpu != _cpu_state() else None
        devices = {i: s for i, s in self.devices.items() if not torch.equal(s, torch.cuda.get_rng_state(i))}
        python = self.python if self.python != random.getstate() else None
        numpy = self.numpy
        if numpy is not None:
            present = sys.modules["numpy"].random.get_state()
            if numpy[2:] == present[2:] and (numpy[1] == present[1]).all():
                numpy = None
        if cpu is None and not devices and python is None and numpy is None:
            return None
        return RandomState(cpu, devices, python, numpy)

    def restore(self) -> None:
        """Set these generators back."""
        if self.cpu is not None:
            torch.set_rng_state(torch.frombuffer(bytearray(self.cpu), dtype=torch.uint8))
        for index, state in self.devices.items():
            torch.cuda.set_rng_state(state, index)
        if self.python is not None:
            random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """These states inside, the present ones again afterwards."""
        present = RandomState.now(tuple(self.devices))
        self.restore()
        try:
            yield
        finally:
            present.restore()


@dataclass(frozen=True, slots=True)
class Ambient:
    """Thread-local modes that choose which kernels an op runs."""

    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    cache: bool
    attention: tuple[bool, bool, bool]

    @staticmethod
    def now(devices: Sequence[str]) -> Ambient:
        """The present modes for these device types."""
        return Ambient(
            tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in devices),
            torch.is_autocast_cache_enabled(),
            _attention_flags(),
        )

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """These modes inside, gradients on."""
        with contextlib.ExitStack() as stack:
            for kind, enabled, dtype in self.autocast:
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=self.cache))
            present = _attention_flags()
            if present != self.attention:
                stack.callback(_set_attention_flags, present)
                _set_attention_flags(self.attention)
            stack.enter_context(torch.enable_grad())
            yield


def _attention_flags() -> tuple[bool, bool, bool]:
    back = torch.backends.cuda
    return back.flash_sdp_enabled(), back.mem_efficient_sdp_enabled(), back.math_sdp_enabled()


def _set_attention_flags(flags: tuple[bool, bool, bool]) -> None:
    torch.backends.cuda.enable_flash_sdp(flags[0])
    torch.backends.cuda.enable_mem_efficient_sdp(flags[1])
    torch.backends.cuda.enable_math_sdp(flags[2])


@dataclass(slots=True)
class Journal:
    """Old values of what a forward changed: ``(namespace, key, old value)``, tensors as copies."""

    values: list[tuple[dict[str, Any], str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def rewound(self) -> Iterator[None]:
        """The old values inside, the present ones afterwards; no tensor in use is written to.

        Buffers are swapped for copies rather than overwritten, so version counters of the real ones stand still.
        """
        present: list[tuple[dict[str, Any], str, Any]] = []
        copies: dict[int, torch.Tensor] = {}
        for space, key, old in self.values:
            present.append((space, key, _shallow(space.get(key, _MISSING))))
            _put(space, key, _working_copy(old, copies))
        try:
            yield
        finally:
            for space, key, value in reversed(present):
                _put(space, key, value)

    def undo(self) -> None:
        """Put every old value back, for good."""
        for space, key, old in reversed(self.values):
            _put(space, key, old)


def _working_copy(old: Any, copies: dict[int, torch.Tensor]) -> Any:
    if isinstance(old, torch.Tensor):
        if id(old) not in copies:
            copies[id(old)] = old.detach().clone()
        return copies[id(old)]
    return old


@dataclass(slots=True)
class _Contents:
    """What stood in a list, dict, set or deque, and that very object (its identity is kept)."""

    items: Any
    target: Any


def _shallow(value: Any) -> Any:
    return _Contents(value.copy(), value) if type(value) in _CONTAINERS else value


def _put(space: dict[str, Any], key: str, value: Any) -> None:
    if value is _MISSING:
        space.pop(key, None)
    elif isinstance(value, _Contents):
        value.target.clear()
        (value.target.update if isinstance(value.target, (dict, set)) else value.target.extend)(value.items)
        space[key] = value.target
    else:
        space[key] = value


class StateWatch:
    """Watches the namespaces of a module tree over one forward after another, and learns which tensors change."""

    def __init__(self, module: nn.Module, changing: Iterable[tuple[int, str]] | None = None) -> None:
        self.modules = list(module.modules())
        self._changing: set[tuple[int, str]] | None = None if changing is None else set(changing)
        self.unforeseen = ""

    def before(self, extra: Sequence[Any] = ()) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
        """Call right before the forward: each namespace, its values, and copies of the tensors that may change."""
        seen: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = []
        clones: dict[int, torch.Tensor] = {}
        for number, space in self._spaces(extra):
            values: dict[str, Any] = {}
            tensors: dict[str, Any] = {}
            for key, value in space.items():
                if key in _NOT_WATCHED:
                    continue
                if isinstance(value, torch.Tensor):
                    if self._changing is None or (number, key) in self._changing:
                        if id(value) not in clones:
                            clones[id(value)] = value.detach().clone()
                        tensors[key] = (value, value._version, clones[id(value)])
                    else:
                        tensors[key] = (value, value._version, None)
                else:
                    values[key] = _shallow(value)
            seen.append((space, values, tensors))
        return seen

    def after(
        self, seen: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]], extra: Sequence[Any] = ()
    ) -> Journal:
        """Call right after the forward: the old values of everything that changed."""
        journal = Journal()
        learn = self._changing is None
        changing: set[tuple[int, str]] = set() if learn else self._changing or set()
        for (number, _), (space, values, tensors) in zip(self._spaces(extra), seen, strict=True):
            for key, present in space.items():
                if key in _NOT_WATCHED:
                    continue
                if key in tensors:
                    old, version, clone = tensors[key]
                    if present is not old:
                        journal.values.append((space, key, _kept(tensors[key])))
                    elif old._version != version or (clone is not None and (not learn or not _same(clone, old))):
                        if clone is None:
                            self.unforeseen = f"buffer {key!r} changed in a later forward although not in the first"
                        else:
                            journal.values.append((space, key, clone))
                            changing.add((number, key))
                elif key in values:
                    if _differs(values[key], present):
                        journal.values.append((space, key, values[key]))
                else:
                    journal.values.append((space, key, _MISSING))
            for key in (set(values) | set(tensors)) - set(space):
                journal.values.append((space, key, values[key] if key in values else _kept(tensors[key])))
        if learn:
            self._changing = changing | self._statistics()
        return journal

    @property
    def changing(self) -> tuple[tuple[int, str], ...]:
        """Tensors known to change, as (namespace number, name); empty before the first call."""
        return tuple(sorted(self._changing or ()))

    def _statistics(self) -> set[tuple[int, str]]:
        """Buffers of normalisation layers: they change in training although the first call may have been in eval."""
        found: set[tuple[int, str]] = set()
        number = 0
        for module in self.modules:
            if isinstance(module, _NormBase):
                found |= {(number + 1, key) for key, value in module._buffers.items() if value is not None}
            number += 2
        return found

    def _spaces(self, extra: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        for module in self.modules:
            yield number, module.__dict__
            yield number + 1, module._buffers
            number += 2
        for thing in extra:
            yield number, vars(thing)
            number += 1


def _kept(entry: tuple[torch.Tensor, int, torch.Tensor | None]) -> torch.Tensor:
    return entry[0] if entry[2] is None else entry[2]


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.device.type == "meta":
        return True
    if a.dtype.is_floating_point or a.dtype.is_complex:
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    return torch.equal(a, b)


def _differs(old: Any, present: Any) -> bool:
    if not isinstance(old, _Contents):
        return old is not present
    if old.target is not present or len(old.items) != len(present):
        return True
    if isinstance(present, dict):
        return any(key not in present or present[key] is not value for key, value in old.items.items())
    if isinstance(present, set):
        return bool(old.items != present)
    return any(a is not b for a, b in zip(old.items, present, strict=True))
