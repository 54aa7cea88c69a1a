"""PyTorch's CUDA caching allocator, replayed: what a program's allocations make it reserve of the driver.

``CachingPolicy`` is the policy under the settings of a PYTORCH_ALLOC_CONF string: streams, private pools, splitting,
rounding, garbage collection, expandable segments and the way out of memory; ``docs/replay.md`` lists the rules, the
twin (``caching_twin``) is them in Python. Segments get rising addresses here; the driver's own may differ, which matters
only among equal blocks (a snapshot brings its own). Cost: O(log n) an event.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit import _core
from memfit.allocators.caching_columns import Columns, columns_of
from memfit.allocators.caching_driver import Driver
from memfit.allocators.caching_loop import run
from memfit.allocators.caching_settings import CachingSettings
from memfit.allocators.caching_stranded import stranded_at
from memfit.allocators.caching_twin import CachingTwin
from memfit.allocators.policy import Replay, ReplaySeries, Stranded
from memfit.ir.requests import Action, Requests, requests_of_events

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Raw:
    """What either replay answers: by block the bytes handed out and the address, and where ``reserved`` changed."""

    size: Ints
    address: Ints
    change_event: Ints
    change_reserved: Ints
    driver_allocations: int
    driver_frees: int
    failed: int | None
    seconds: float


@dataclass(frozen=True)
class CachingPolicy:
    """The CUDA caching allocator under ``settings``; a ``Policy``."""

    settings: CachingSettings = field(default_factory=CachingSettings)

    @property
    def name(self) -> str:
        """``torch``, with the settings that are not the default."""
        text = str(self.settings)
        return f"torch {text}" if text else "torch"

    def replay(
        self, requests: Requests, capacity: int | None = None, *, series: bool = False, twin: bool = False
    ) -> Replay:
        """Serve ``requests`` on a device of ``capacity`` bytes (None: any number); see ``Policy.replay``.

        With ``series``, also what is stranded at the reserved peak. The series end at the event that failed.

        Raises:
            TraceError: requests that no program can make.
        """
        columns = columns_of(requests, self.settings)
        raw = (_by_twin if twin else _compiled)(columns, self.settings, capacity, series)
        return self._told(columns, raw, capacity, series)

    def _told(self, columns: Columns, raw: _Raw, capacity: int | None, series: bool) -> Replay:
        events = len(columns.action) if raw.failed is None else raw.failed
        live, allocated = running_bytes(columns, raw.size, events)
        reserved = np.zeros(events, np.int64)
        inside = raw.change_event < events
        peak_reserved = int(raw.change_reserved.max(initial=0))
        full = None
        stranded: tuple[Stranded, ...] = ()
        if series:
            if len(raw.change_reserved):
                peak = int(raw.change_event[np.argmax(raw.change_reserved)])
                stranded = stranded_at(columns, self.settings, capacity, peak) if peak < events else ()
            if np.any(inside):
                at, value = raw.change_event[inside], raw.change_reserved[inside]
                last = np.append(at[1:] != at[:-1], True)
                at, value = at[last], value[last]
                reserved[at[0] :] = np.repeat(value, np.diff(np.append(at, events)))
            address = np.full(events, -1, np.int64)
            served = columns.event_of_block[: len(raw.address)]
            address[served] = raw.address
            full = ReplaySeries(live, allocated, reserved, address)
        return Replay(
            self.name, int(live.max(initial=0)), int(allocated.max(initial=0)), peak_reserved, raw.driver_allocations,
            raw.driver_frees, raw.failed, raw.seconds, full, stranded, {"settings": str(self.settings)},
        )  # fmt: skip


def kernel_arguments(columns: Columns, settings: CachingSettings) -> tuple[Any, ...]:
    """The arguments that the compiled replay and the compiled bisection begin with."""
    pool = np.asarray([pool for pool, _, _ in columns.queues], np.int32)
    small = np.asarray([small for _, small, _ in columns.queues], np.uint8)
    trace = (columns.action, columns.block, columns.rounded, columns.queue)
    collects = settings.garbage_collection_threshold if settings.collects_garbage else 0.0
    return (
        *(np.ascontiguousarray(column) for column in trace), len(columns.event_of_block), pool, small,
        settings.expandable_segments, -1 if settings.max_split_size_mb is None else settings.max_split,
        settings.max_non_split_rounding, settings.large_segment, collects,
        1.0 if settings.memory_fraction is None else settings.memory_fraction,
    )  # fmt: skip


def _compiled(columns: Columns, settings: CachingSettings, capacity: int | None, series: bool) -> _Raw:
    arguments = kernel_arguments(columns, settings)
    begun = time.thread_time()
    told = _core.replay_caching(*arguments, -1 if capacity is None else capacity, True)
    seconds = time.thread_time() - begun
    failed, _, allocations, frees, size, address, event, reserved = told
    return _Raw(size, address, event, reserved, allocations, frees, None if failed < 0 else failed, seconds)


def _by_twin(columns: Columns, settings: CachingSettings, capacity: int | None, series: bool) -> _Raw:
    twin = CachingTwin(columns.queues, settings, Driver(capacity))
    outcome = run(twin, columns)
    changes = np.asarray(twin.changes, np.int64).reshape(-1, 2)
    return _Raw(
        outcome.size, outcome.address, changes[:, 0], changes[:, 1],
        twin.driver_allocations, twin.driver_frees, outcome.failed, outcome.seconds,
    )  # fmt: skip


def running_bytes(columns: Columns, handed_out: Ints, events: int) -> tuple[Ints, Ints]:
    """Live and allocated bytes after each of the first ``events`` events: up to the request to free, as torch counts."""
    action, block = columns.action[:events], columns.block[:events]
    live, allocated = np.zeros(events, np.int64), np.zeros(events, np.int64)
    allocates = action == Action.ALLOCATE
    live[allocates] = columns.nbytes[:events][allocates]
    allocated[allocates] = handed_out[block[allocates]]
    ends = np.flatnonzero((action == Action.FREE) | (action == Action.FREE_REQUESTED))
    _, first = np.unique(block[ends], return_index=True)
    ends = ends[first]
    freed = block[ends]
    live[ends] = -columns.nbytes[columns.event_of_block[freed]]
    allocated[ends] = -handed_out[freed]
    return np.cumsum(live), np.cumsum(allocated)


@dataclass(frozen=True, slots=True)
class CachingReplay:
    """Peaks of a replay. ``failed``: the event at which memory ran out (the replay stops there), or None."""

    peak_reserved: int
    peak_allocated: int
    driver_calls: int
    failed: int | None


def replay_caching(events: Iterable[tuple[int, int]], capacity: int | None = None) -> CachingReplay:
    """Replay (storage, delta) events: a positive delta allocates, a negative one frees the whole storage.

    ``failed`` counts the events that allocate or free something.
    """
    listed = list(events)
    requests = requests_of_events([storage for storage, _ in listed], [delta for _, delta in listed])
    found = CachingPolicy().replay(requests, capacity)
    return CachingReplay(found.peak_reserved, found.peak_allocated, found.driver_calls, found.failed)


__all__ = ["CachingPolicy", "CachingReplay", "CachingSettings", "Stranded", "replay_caching"]
