"""Run a module's forward again in backward instead of keeping what it saves, with bit-identical results.

The autograd graph stays the one of the plain program: only what its nodes *save* is replaced, through saved-tensor
hooks, by handles; the first handle that backward opens runs the forward again and fills all handles of that call. So
gradients are summed in the same order, tied weights and unused outputs need no care, and any output object will do::

    plain      forward: node saves a, b, c ................................ backward: uses a, b, c
    here       forward: node saves handles (inputs of the call are kept) .. backward: forward again fills a, b, c

As ``torch.utils.checkpoint(use_reentrant=False)`` does, with what that leaves out (see ``replay_state``): buffers and
Python attributes that the forward changes, Python's and NumPy's generators, inputs changed in place, key/value caches.
Calls nest: the inputs of an inner call are handles of the outer one. A second run stops at the last handle in use.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", names the idea. Cost: one more forward of the module
per backward, less what follows its last saved tensor; memory: its inputs, and during its backward all it saves.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from memfit.frameworks.torch.frozen_arguments import Frozen, ReplayError, freeze
from memfit.frameworks.torch.replay_state import Ambient, Journal, RandomState, StateWatch

__all__ = ["Footprint", "Recomputation", "ReplayError", "recomputed", "recomputing"]

_current = threading.local()


class _Enough(BaseException):
    """Raised inside a second run once every handle in use is filled. Not an Exception: programs catch those."""


class _Handle:
    """What a node saved instead of a tensor."""

    __slots__ = ("__weakref__", "call", "number", "value")

    def __init__(self, call: _Call, number: int) -> None:
        self.call, self.number = call, number
        self.value: torch.Tensor | None = None

    def open(self) -> torch.Tensor:
        if self.value is None:
            self.call.run_again()
            if self.value is None:
                raise ReplayError("its second run saved fewer tensors than its first", self.call.name)
        return self.value


class _Call:
    """One call of one recomputed module."""

    def __init__(self, name: str, forward: Callable[..., Any], frozen: Frozen, ambient: Ambient) -> None:
        self.name, self.forward, self.frozen, self.ambient = name, forward, frozen, ambient
        self.handles: list[weakref.ref[_Handle]] = []
        self.kinds: list[tuple[torch.Size, torch.dtype, torch.device]] = []
        self.random: RandomState | None = None
        self.journal: Journal | None = None
        self.refused = ""

    def pack(self, tensor: torch.Tensor) -> _Handle:
        handle = _Handle(self, len(self.handles))
        self.handles.append(weakref.ref(handle))
        self.kinds.append((tensor.shape, tensor.dtype, tensor.device))
        return handle

    def run_again(self) -> None:
        """Fill every handle that is still in use."""
        if self.refused:
            raise ReplayError(self.refused, self.name)
        if self.journal is None:
            raise ReplayError("it runs a backward of its own inside its forward", self.name)
        in_use = [number for number, reference in enumerate(self.handles) if reference() is not None]
        last, count = in_use[-1], 0

        def fill(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal count
            number, count = count, count + 1
            handle = self.handles[number]() if number < len(self.handles) else None
            value = tensor.detach()
            if handle is not None:
                if self.kinds[number] != (value.shape, value.dtype, value.device):
                    raise ReplayError(
                        f"its second run saves {tuple(value.shape)} {value.dtype} where the first saved "
                        f"{tuple(self.kinds[number][0])} {self.kinds[number][1]}",
                        self.name,
                    )
                handle.value = value
            if number >= last:
                raise _Enough
            return value

        with contextlib.ExitStack() as stack:
            stack.enter_context(self.ambient.entered())
            if self.random is not None:
                stack.enter_context(self.random.replayed())
            stack.enter_context(self.journal.rewound())
            args, kwargs = self.frozen.thaw()
            stack.enter_context(_saving(fill, _open_now))
            with contextlib.suppress(_Enough):
                self.forward(*args, **kwargs)


def _open(handle: _Handle) -> torch.Tensor:
    return handle.open()


def _open_now(value: torch.Tensor) -> torch.Tensor:
    return value


@contextlib.contextmanager
def _saving(pack: Callable[[torch.Tensor], Any], unpack: Callable[[Any], torch.Tensor]) -> Iterator[None]:
    """Saved tensors go through ``pack`` inside, and so do the inputs of recomputed modules called inside."""
    outer = getattr(_current, "hooks", None)
    _current.hooks = (pack, unpack)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
    finally:
        _current.hooks = outer


def _keep(name: str, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Keep an input of a recomputed call: itself, or a handle of the recomputed call around it."""
    hooks = getattr(_current, "hooks", None)
    if hooks is None:
        version = tensor._version

        def unchanged() -> torch.Tensor:
            if tensor._version != version:
                raise ReplayError("an input of it is changed in place after it ran", name)
            return tensor

        return unchanged
    pack, unpack = hooks
    packed = pack(tensor)
    return lambda: unpack(packed)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a module's forward changes in place: tensor arguments by position, tensors of its own by (space, name)."""

    arguments: tuple[int, ...] = ()
    tensors: tuple[tuple[int, str], ...] = ()


def recomputed(module: nn.Module, footprint: Footprint | None = None, name: str = "") -> Callable[..., Any]:
    """A forward of ``module`` that keeps only its inputs and runs again in backward.

    Args:
        module: any module; its present ``forward`` is what runs.
        footprint: what it changes in place; None: learn it in its first call, which copies every input and buffer.
        name: for messages.

    Raises:
        ReplayError: (from backward) the second run is not the first one again.
    """
    forward = module.forward
    watch = StateWatch(module, None if footprint is None else footprint.tensors)
    known: frozenset[int] | None = None if footprint is None else frozenset(footprint.arguments)
    devices = {p.device for p in module.parameters()}

    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal known
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled() or torch.compiler.is_compiling():
            return forward(*args, **kwargs)
        frozen = freeze(args, kwargs, functools.partial(_keep, name), known)
        here = devices | frozen.devices
        cuda = sorted({device.index or 0 for device in here if device.type == "cuda"})
        call = _Call(name, forward, frozen, Ambient.now(sorted({device.type for device in here} | {"cpu"})))
        drawn = RandomState.now(cuda)
        seen = watch.before(frozen.holders)
        with _saving(call.pack, _open):
            output = forward(*args, **kwargs)
        call.random = drawn.drawn()
        call.journal = watch.after(seen, frozen.holders)
        changed = frozen.changed()
        if known is None:
            known = frozenset(changed)
        elif changed - known:
            call.refused = "it changes an input in place that it did not change in its first call"
        if watch.unforeseen:
            call.refused = watch.unforeseen
        return output

    return wrapper


class Recomputation:
    """Recomputes chosen submodules of a model while ``applied``; outside, the model is as it was.

    Args:
        model: the model.
        paths: names as ``named_modules`` gives them; a submodule with several names is recomputed once.
        footprints: what each path changes in place, where known.

    Raises:
        AttributeError: a path that names no submodule.
    """

    def __init__(
        self, model: nn.Module, paths: Iterable[str], footprints: Mapping[str, Footprint] | None = None
    ) -> None:
        chosen: dict[int, tuple[nn.Module, Footprint | None, str]] = {}
        for path in paths:
            module = model.get_submodule(path)
            chosen.setdefault(id(module), (module, (footprints or {}).get(path), path))
        self._forwards = [(module, recomputed(module, footprint, name)) for module, footprint, name in chosen.values()]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The submodules recompute inside."""
        with contextlib.ExitStack() as stack:
            for module, forward in self._forwards:
                stack.callback(_restore, module, module.__dict__.get("forward"))
                module.__dict__["forward"] = forward
            yield


def recomputing(model: nn.Module, paths: Iterable[str]) -> contextlib.AbstractContextManager[None]:
    """Recompute the submodules of ``model`` named by ``paths`` inside a ``with``."""
    return Recomputation(model, paths).applied()


def _restore(module: nn.Module, own: Any) -> None:
    if own is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = own
