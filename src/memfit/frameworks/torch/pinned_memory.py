"""Slow memory for tensors of a GPU that wait: page-locked host buffers, and a copy stream each way.

The contract is that of ``slow_memory.SlowMemory``. One buffer a slot, kept from step to step. Order, by events::

    step's stream   ... make s | save ......................... load | read s' ...
    out             wait for s | s -> buffer
    back                         wait for the buffer | buffer -> s'

``save`` also waits until the buffer's last load is done, and the copied tensor is recorded on the stream that copies it:
the caching allocator gives its bytes away only after the copy (``Tensor.record_stream``). A prefetch takes device memory
before the plan counts it, so it starts only within ``spare`` bytes, what the plan leaves of the budget; without room
the copy starts at the load and the step waits for it. On the CPU the same logic copies at once.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from memfit.errors import DeviceError
from memfit.frameworks.torch.slow_memory import SlowMemory, transfer_speed
from memfit.machine.devices import find_device

_SLOWEST = 12_000_000_000  # bytes per second of a device that no table knows: PCIe of the third generation
OUT, BACK = "out", "back"


class Copies(Protocol):
    """How copies run beside the step."""

    def copy(self, way: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Any, ...]) -> Any:
        """Start copying once the step's work so far and the events ``after`` are done; the event of its end."""

    def wait(self, event: Any) -> None:
        """Let the step's further work wait for an event."""


class CopiesAtOnce:
    """Copies of CPU tensors: done when started."""

    def copy(self, way: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Any, ...]) -> Any:
        """Copy now."""
        target.copy_(source)

    def wait(self, event: Any) -> None:
        """Nothing to wait for."""


class CopiesOnStreams:
    """Copies on two streams of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.streams = {OUT: torch.cuda.Stream(device), BACK: torch.cuda.Stream(device)}

    def copy(self, way: str, target: torch.Tensor, source: torch.Tensor, after: tuple[Any, ...]) -> Any:
        """Start the copy on the stream of its way."""
        stream = self.streams[way]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        for event in after:
            stream.wait_event(event)
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
            done = stream.record_event()
        (source if way == OUT else target).record_stream(stream)
        return done

    def wait(self, event: Any) -> None:
        """Let the device's current stream wait."""
        torch.cuda.current_stream(self.device).wait_event(event)


class PinnedMemory:
    """Host buffers for the tensors of ``device``. Not for several threads at once.

    Args:
        device: of the tensors.
        spare: device bytes that prefetched tensors may take before they are loaded.
        copies: how copies run; default: streams on CUDA, at once on the CPU.
    """

    def __init__(self, device: torch.device, spare: int = 0, copies: Copies | None = None) -> None:
        self.device, self.spare = device, spare
        self.copies: Copies = copies or (CopiesOnStreams(device) if device.type == "cuda" else CopiesAtOnce())
        self.buffers: dict[int, torch.Tensor] = {}
        self.saved: dict[int, Any] = {}
        self.loaded: dict[int, Any] = {}
        self.coming: dict[int, tuple[torch.Tensor, Any]] = {}

    def save(self, slot: int, tensor: torch.Tensor) -> None:
        """Start writing the storage of ``tensor`` to ``slot``."""
        source = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
        self.coming.pop(slot, None)
        if slot not in self.buffers or self.buffers[slot].numel() != source.numel():
            pinned = self.device.type == "cuda"
            self.buffers[slot] = torch.empty(source.numel(), dtype=torch.uint8, pin_memory=pinned)
            self.loaded.pop(slot, None)
        after = (self.loaded[slot],) if slot in self.loaded else ()
        self.saved[slot] = self.copies.copy(OUT, self.buffers[slot], source, after)

    def prefetch(self, slot: int) -> None:
        """Start the copy of ``slot`` back where ``spare`` has room for it."""
        taken = sum(made.numel() for made, _ in self.coming.values())
        if slot not in self.coming and taken + self.buffers[slot].numel() <= self.spare:
            self.coming[slot] = self._started(slot)

    def load(self, slot: int, like: torch.Tensor) -> torch.Tensor:
        """A fresh tensor with the bytes of ``slot`` and the layout of ``like`` (any tensor, fake ones too)."""
        made, done = self.coming.pop(slot) if slot in self.coming else self._started(slot)
        self.copies.wait(done)
        return made.view(like.dtype).as_strided(tuple(like.shape), tuple(like.stride()), like.storage_offset())

    def _started(self, slot: int) -> tuple[torch.Tensor, Any]:
        made = torch.empty(self.buffers[slot].numel(), dtype=torch.uint8, device=self.device)
        self.loaded[slot] = self.copies.copy(BACK, made, self.buffers[slot], (self.saved[slot],))
        return made, self.loaded[slot]


def slow_memory_of(device: torch.device, spare: int = 0) -> SlowMemory | PinnedMemory:
    """Where tensors of ``device`` wait: host memory for a GPU's, a file for the CPU's."""
    return PinnedMemory(device, spare) if device.type == "cuda" else SlowMemory()


def transfer_speed_of(device: torch.device) -> float:
    """Bytes per second between ``device`` and where its tensors wait: by the device table; on the CPU, measured."""
    if device.type != "cuda":
        return transfer_speed()
    return table_speed(torch.cuda.get_device_name(device))


def table_speed(name: str) -> float:
    """Bytes per second to and from the host that the device table states for ``name``; 12 GB/s where it does not."""
    try:
        return float(find_device(name).transfer or _SLOWEST)
    except DeviceError:
        return float(_SLOWEST)
