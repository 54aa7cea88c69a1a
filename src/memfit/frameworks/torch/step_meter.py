"""Run a step for real and say what it took: peak bytes of tensors, seconds, and a digest of everything it left behind.

Peak here is what a budget limits: all tensors of the step, those that exist before it (parameters, buffers, gradients,
optimizer state, inputs) and those it makes. CPU bytes come from the allocator hook, CUDA bytes from the caching
allocator's own counters; nothing else of the process is counted. ``StepState`` puts back what the run changed.
"""

from __future__ import annotations

import gc
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.replay_state import RandomState
from memfit.ir.step import Step


@dataclass(frozen=True, slots=True)
class Run:
    """One real run. ``peak``: bytes, tensors that existed before included; ``seconds``: process CPU or device time."""

    peak: int
    seconds: float
    digest: dict[str, str]
    result: Any = None


def device_of(step: Step) -> torch.device:
    """The device of the first parameter, else of the first input tensor, else the CPU."""
    for tensor in _state_tensors(step):
        return tensor.device
    return torch.device("cpu")


def _state_tensors(step: Step) -> Iterator[torch.Tensor]:
    if isinstance(step.model, torch.nn.Module):
        for parameter in step.model.parameters():
            yield parameter
            if parameter.grad is not None:
                yield parameter.grad
        yield from step.model.buffers()
    for state in step.optimizer.state.values() if step.optimizer is not None else ():
        yield from (value for value in pytree.tree_leaves(dict(state)) if isinstance(value, torch.Tensor))
    yield from (leaf for leaf in pytree.tree_leaves(step.inputs) if isinstance(leaf, torch.Tensor))


def held_bytes(step: Step) -> int:
    """Bytes of the storages that exist before the step: parameters, gradients, buffers, optimizer state, inputs."""
    seen: dict[tuple[str, int], int] = {}
    for tensor in _state_tensors(step):
        for part in _storages(tensor):
            seen[str(part.device), part.data_ptr()] = part.nbytes()
    return sum(seen.values())


def _storages(tensor: torch.Tensor) -> list[torch.UntypedStorage]:
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in _storages(getattr(tensor, name))]
    return [tensor.untyped_storage()]


class Meter:
    """Live and peak bytes of a device, as a ``with`` block; ``reset`` starts a new peak."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._hook = device, allocator_hook.installed()

    def __enter__(self) -> Meter:
        if self.device.type == "cpu":
            self._hook.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cpu":
            self._hook.__exit__(None, None, None)

    def live(self) -> int:
        """Bytes alive now."""
        if self.device.type == "cuda":
            return int(torch.cuda.memory_allocated(self.device))
        return allocator_hook.live_bytes()

    def peak(self) -> int:
        """Most bytes alive since ``reset``."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return allocator_hook.peak_bytes()

    def reset(self) -> None:
        """Start a new peak."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            allocator_hook.reset_peak()

    def seconds(self) -> float:
        """A clock for differences: CPU time of the process, or wall time once the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()


def measure(step: Step, run: Callable[[], Any]) -> Run:
    """Run ``run`` once, which runs ``step`` in some form, and measure it.

    Cost: one step, and a hash of parameters, gradients, buffers and optimizer state.
    """
    gc.collect(1)
    held = held_bytes(step)
    with Meter(device_of(step)) as meter:
        before = meter.live()
        meter.reset()
        start = meter.seconds()
        result = run()
        seconds = meter.seconds() - start
        peak = held + max(0, meter.peak() - before)
    return Run(peak, seconds, digest(step, result), result)


def digest(step: Step, result: Any) -> dict[str, str]:
    """Digests of what a step leaves: loss, parameters, gradients, buffers, optimizer state, random state."""
    found = {"loss": _digest(result), "random": _digest([torch.get_rng_state(), repr(random.getstate())])}
    if torch.cuda.is_available():
        found["device random"] = _digest(torch.cuda.get_rng_state_all())
    if isinstance(step.model, torch.nn.Module):
        parameters = list(step.model.parameters())
        found["parameters"] = _digest(parameters)
        found["gradients"] = _digest([p.grad for p in parameters])
        found["buffers"] = _digest(list(step.model.buffers()))
    if step.optimizer is not None:
        held = [p for group in step.optimizer.param_groups for p in group["params"]]
        found["optimizer state"] = _digest([dict(step.optimizer.state.get(p, {})) for p in held])
    return found


def _digest(value: Any) -> str:
    made = hashlib.blake2b(digest_size=16)
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            made.update(repr((tuple(leaf.shape), leaf.dtype)).encode())
            if leaf.layout is torch.strided and not hasattr(leaf, "__tensor_flatten__"):
                flat = leaf.detach().cpu().contiguous().reshape(-1)
                made.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
            else:
                made.update(repr(leaf).encode())
        elif isinstance(leaf, (int, float, bool, str, bytes, type(None))):
            made.update(repr(leaf).encode())
    return made.hexdigest()


class StepState:
    """A copy of what a step changes: parameters, gradients, buffers, optimizer state, random state, training flags.

    Cost: as many bytes as those tensors have, held outside of the step.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        tensors = list(_unique(_state_tensors(step)))
        self._values = [(tensor, tensor.detach().clone()) for tensor in tensors]
        modules = list(step.model.modules()) if isinstance(step.model, torch.nn.Module) else []
        self._flags = [(module, module.training) for module in modules]
        self._buffers = [(module, dict(module._buffers)) for module in modules]
        self._gradients = [(p, p.grad) for m in modules for p in m._parameters.values() if p is not None]
        self._optimizer = _optimizer_entries(step.optimizer)
        devices = tuple(range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
        self._random = RandomState.now(devices)

    def restore(self) -> None:
        """Put everything back; tensors keep their identity."""
        with torch.no_grad():
            for tensor, value in self._values:
                tensor.copy_(value)
        for module, flag in self._flags:
            module.training = flag
        for module, buffers in self._buffers:
            module._buffers.clear()
            module._buffers.update(buffers)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        if self.step.optimizer is not None:
            states, groups = self._optimizer
            self.step.optimizer.state.clear()
            self.step.optimizer.state.update({parameter: dict(state) for parameter, state in states})
            for group, values in zip(self.step.optimizer.param_groups, groups, strict=True):
                group.update(values)
        self._random.restore()


def _optimizer_entries(optimizer: Any) -> tuple[list[tuple[Any, dict[str, Any]]], list[dict[str, Any]]]:
    if optimizer is None:
        return [], []
    states = [(parameter, dict(state)) for parameter, state in optimizer.state.items()]
    return states, [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def _unique(tensors: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    seen: set[int] = set()
    for tensor in tensors:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor
