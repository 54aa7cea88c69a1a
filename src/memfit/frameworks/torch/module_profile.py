"""What every module call of a step saves for backward, when, and what it costs: one run for bytes, one for seconds.

In the first run saved-tensor hooks note each saved tensor with the module call that saved it, and each moment at which
backward takes one up; these moments are the events of a ``ModuleProfile``, and the allocator's live and peak bytes are
read at each. Argument and buffer changes of every module are learned on the way (``Footprint``). The second run times
forwards alone.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from memfit.frameworks.torch.checkpointing import Footprint
from memfit.frameworks.torch.frozen_arguments import freeze
from memfit.frameworks.torch.replay_state import StateWatch
from memfit.frameworks.torch.step_meter import Meter, device_of, held_bytes
from memfit.ir.step import Step
from memfit.passes.recompute_modules import Handle, ModuleCall, ModuleProfile

_NEVER = (nn.ModuleList, nn.ModuleDict, torch.jit.ScriptModule)


@dataclass(frozen=True)
class ProfiledModules:
    """A profile, and by module number what each changes in place."""

    profile: ModuleProfile
    footprints: tuple[Footprint, ...]


def profile_modules(step: Step, run: Callable[[], Any], rewind: Callable[[], None]) -> ProfiledModules:
    """Profile ``run``, which runs ``step`` with gradients; ``rewind`` puts the step's state back between the runs.

    Cost: two steps; the first copies buffers at every module call and reads the allocator at every saved tensor.
    """
    names = {
        name: module for name, module in step.model.named_modules()
        if name and not isinstance(module, _NEVER) and type(module).forward is not nn.Module.forward
    }  # fmt: skip
    recorder = _Recorder(names, held_bytes(step))
    recorder.run(step, run)
    rewind()
    seconds = _timed(step, names, run)
    rewind()
    return recorder.profiled(seconds)


class _Saved:
    """A saved tensor in the profiling run; tells when the graph lets it go."""

    __slots__ = ("__weakref__", "number", "tensor")

    def __init__(self, number: int, tensor: torch.Tensor) -> None:
        self.number, self.tensor = number, tensor


class _Recorder:
    def __init__(self, modules: dict[str, nn.Module], held: int) -> None:
        self.names, self.modules, self.held = list(modules), list(modules.values()), held
        self.meter: Meter | None = None
        self.base = 0
        self.lives: list[int] = []
        self.peaks: list[int] = []
        self.sizes: list[int] = []
        self.known: dict[int, tuple[StorageWeakRef, int]] = {}
        self.handles: list[list[int]] = []
        self.calls: list[dict[str, Any]] = []
        self.stack: list[int] = []
        self.watches = [StateWatch(module) for module in self.modules]
        self.arguments: list[set[int]] = [set() for _ in self.modules]

    def run(self, step: Step, run: Callable[[], Any]) -> None:
        for tensor in [*step.model.parameters(), *step.model.buffers(), *pytree.tree_leaves(step.inputs)]:
            if isinstance(tensor, torch.Tensor):
                self.storage(tensor, free=True)
        gc.collect(1)
        with Meter(device_of(step)) as self.meter, contextlib.ExitStack() as stack:
            self.base = self.held - self.meter.live()
            self.meter.reset()
            self.lives.append(self.held)
            for number, module in enumerate(self.modules):
                stack.enter_context(_forward(module, partial(self.recorded, number)))
            with torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack):
                run()
            self.event()

    def event(self) -> int:
        """Close the present interval, open the next; returns its number."""
        assert self.meter is not None
        self.peaks.append(self.base + self.meter.peak())
        self.meter.reset()
        self.lives.append(self.base + self.meter.live())
        return len(self.peaks)

    def storage(self, tensor: torch.Tensor, free: bool = False) -> int:
        part = tensor.untyped_storage()
        key = part.data_ptr()
        known = self.known.get(key)
        if known is None or known[0].expired():
            known = (StorageWeakRef(part), len(self.sizes))
            self.known[key] = known
            self.sizes.append(0 if free else part.nbytes())
        return known[1]

    def pack(self, tensor: torch.Tensor) -> Any:
        if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.layout is not torch.strided:
            return tensor
        event = self.event()
        saved = _Saved(len(self.handles), tensor.detach())
        self.handles.append([self.storage(tensor), self.stack[-1] if self.stack else -1, event, -1])
        weakref.finalize(saved, self.released, saved.number).atexit = False
        return saved

    def unpack(self, saved: Any) -> torch.Tensor:
        if not isinstance(saved, _Saved):
            return saved
        self.event()
        return saved.tensor

    def released(self, number: int) -> None:
        self.handles[number][3] = len(self.peaks) + 1

    def recorded(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            watch = self.watches[number]
            frozen = freeze(args, kwargs, lambda tensor: lambda: tensor, frozenset())
            inputs = [self.storage(t) for reference, _ in frozen.tensors if (t := reference()) is not None]
            seen = watch.before(frozen.holders)
            call = {
                "module": number, "parent": self.stack[-1] if self.stack else -1, "start": self.event(),
                "inputs": tuple(dict.fromkeys(inputs)),
            }  # fmt: skip
            self.stack.append(len(self.calls))
            self.calls.append(call)
            try:
                return forward(*args, **kwargs)
            finally:
                self.stack.pop()
                call["end"] = self.event()
                watch.after(seen, frozen.holders)
                self.arguments[number] |= frozen.changed()

        return wrapper

    def profiled(self, seconds: list[float]) -> ProfiledModules:
        events = len(self.peaks)
        handles = tuple(
            Handle(storage, call, packed, events if released < 0 else min(released, events))
            for storage, call, packed, released in self.handles
        )
        calls = tuple(
            ModuleCall(c["module"], c["parent"], c["start"], c["end"], c["inputs"], self.transient(c))
            for c in self.calls
        )
        kinds = tuple(type(module).__name__ for module in self.modules)
        profile = ModuleProfile(
            tuple(self.lives[:events]), tuple(self.peaks), tuple(self.sizes), handles, calls, tuple(self.names), kinds,
            tuple(seconds),
        )  # fmt: skip
        footprints = tuple(
            Footprint(tuple(sorted(arguments)), watch.changing)
            for arguments, watch in zip(self.arguments, self.watches, strict=True)
        )
        return ProfiledModules(profile, footprints)

    def transient(self, call: dict[str, Any]) -> int:
        inside = self.peaks[call["start"] : call["end"]]
        return max(0, max(inside, default=0) - self.lives[call["end"]]) if call["end"] < len(self.lives) else 0


@contextlib.contextmanager
def _forward(module: nn.Module, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = wrap(module.forward)
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own


def _timed(step: Step, modules: dict[str, nn.Module], run: Callable[[], Any]) -> list[float]:
    """Forward seconds of each module, the sum over its calls with gradients."""
    seconds = [0.0] * len(modules)

    def timed(number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = meter.seconds()
            try:
                return forward(*args, **kwargs)
            finally:
                seconds[number] += (meter.seconds() - start) * torch.is_grad_enabled()

        return wrapper

    with Meter(device_of(step)) as meter, contextlib.ExitStack() as stack:
        for number, module in enumerate(modules.values()):
            stack.enter_context(_forward(module, partial(timed, number)))
        run()
    return seconds
