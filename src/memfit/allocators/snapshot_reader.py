"""torch.cuda.memory snapshots as Requests with the real addresses, and what was there before the first event.

A snapshot holds the allocator's last events (a ring buffer) and its segments at the end. The events give the requests;
the segments, walked back through the events, give the state at the start (``snapshot_state``). Three readings need care:

* a ``free_completed`` right after its own ``free_requested`` is a plain FREE; apart from it, another stream was waited for;
* segments given back just before a new one came for the same request are that request's way out of memory; given back
  otherwise they are an EMPTY_CACHE. Waiting frees that completed on that way are part of it: the replay completes them;
* an allocation that failed left no block; what it gave back on the way reads as an EMPTY_CACHE.

Cost: O(entries log entries).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.allocators.caching_settings import CachingSettings, SettingsError, parse_settings
from memfit.allocators.plain_pickle import load_plain
from memfit.allocators.snapshot_state import InitialSegment, live_before, segments_before
from memfit.errors import TraceError
from memfit.ir.requests import Action, Requests

Ints = npt.NDArray[np.int64]

KINDS = (
    "alloc", "free_requested", "free_completed", "segment_alloc", "segment_free", "segment_map", "segment_unmap", "oom",
)  # fmt: skip
ALLOC, REQUESTED, COMPLETED, SEGMENT, SEGMENT_BACK, MAP, UNMAP, OOM = range(8)
_OTHER = 99


@dataclass(frozen=True)
class DriverEvents:
    """What the driver was asked for, in time order. ``event``: the request (an index into Requests) that needed it.

    ``kind``: SEGMENT, SEGMENT_BACK, MAP or UNMAP.
    """

    event: Ints
    kind: npt.NDArray[np.uint8]
    address: Ints
    nbytes: Ints


@dataclass(frozen=True)
class Snapshot:
    """One device of a snapshot.

    ``requests`` carry the real addresses; the first ``prefix`` of them are allocations that were live before the first
    recorded event, in order of address. ``segments``: what was reserved before it. ``device_bytes``: of the device, where
    known. ``entries``: how many trace entries were read.
    """

    device: int
    requests: Requests
    settings: CachingSettings
    prefix: int
    segments: tuple[InitialSegment, ...]
    driver: DriverEvents
    device_bytes: int | None
    entries: int
    meta: dict[str, Any] = field(default_factory=dict)


def read_snapshot(path: str | Path) -> tuple[Snapshot, ...]:
    """The devices of a snapshot pickle that hold events or segments.

    Raises:
        TraceError: no snapshot, a cut-off file, or a pickle that asks for a class or a global.
    """
    return snapshots_of(load_plain(path), str(path))


def snapshots_of(loaded: Any, where: str = "the snapshot") -> tuple[Snapshot, ...]:
    """The devices of a snapshot that is already loaded, as ``torch.cuda.memory._snapshot()`` returns it."""
    if not isinstance(loaded, dict) or not isinstance(loaded.get("device_traces"), list):
        raise TraceError(where, "it is no torch.cuda.memory snapshot: there is no list 'device_traces'")
    segments = loaded.get("segments", [])
    try:
        settings = _settings(loaded.get("allocator_settings"))
        extra = loaded.get("memfit")
        extra = extra if isinstance(extra, dict) else {}
        sizes, fractions = extra.get("device_bytes", []), extra.get("memory_fraction", [])
        out = []
        for device, trace in enumerate(loaded["device_traces"]):
            mine = [segment for segment in segments if segment.get("device", 0) == device]
            if trace or mine:
                total = int(sizes[device]) if device < len(sizes) else None
                own = (
                    replace(settings, memory_fraction=float(fractions[device])) if device < len(fractions) else settings
                )
                out.append(_device(device, trace, mine, own, total))
    except SettingsError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise TraceError(where, f"it is no torch.cuda.memory snapshot ({type(error).__name__}: {error})") from error
    if not out:
        raise TraceError(where, "it holds no events; record with torch.cuda.memory._record_memory_history() first")
    return tuple(out)


def _settings(held: Any) -> CachingSettings:
    if not isinstance(held, dict):
        return CachingSettings()
    text = held.get("PYTORCH_ALLOC_CONF") or held.get("PYTORCH_CUDA_ALLOC_CONF")
    return parse_settings(str(text)) if text else CachingSettings()


@dataclass
class _Entries:
    """The trace as columns; ``order``: position in the file."""

    kind: Ints
    address: Ints
    nbytes: Ints
    stream: Ints
    pool: Ints


def _columns(
    trace: list[dict[str, Any]], segments: list[dict[str, Any]]
) -> tuple[_Entries, dict[Any, int], dict[int, int]]:
    """Columns of the entries that matter, the numbers of pools, and the numbers of streams (in order of their handles)."""
    numbers = {name: number for number, name in enumerate(KINDS)}
    listed = [numbers.get(entry["action"], _OTHER) for entry in trace]
    address = [entry.get("addr", 0) for entry in trace]
    nbytes = [entry["size"] for entry in trace]
    handles = [entry.get("stream", 0) for entry in trace]
    streams = {handle: number for number, handle in enumerate(sorted({*handles, *(s["stream"] for s in segments)}))}
    if trace and ("pool_id" in trace[0] or "segment_pool_id" in trace[0]):
        key = "pool_id" if "pool_id" in trace[0] else "segment_pool_id"
        named = [tuple(entry[key]) for entry in trace]
    else:
        named = [(0, 0)] * len(trace)
    found = {*named, *(tuple(s.get("segment_pool_id", (0, 0))) for s in segments)} - {(0, 0)}
    pools = {(0, 0): 0, **{pool: number + 1 for number, pool in enumerate(sorted(found))}}
    entries = _Entries(
        np.asarray(listed, np.int64), np.asarray(address, np.int64), np.asarray(nbytes, np.int64),
        np.asarray([streams[handle] for handle in handles], np.int64), np.asarray([pools[p] for p in named], np.int64),
    )  # fmt: skip
    keep = entries.kind != _OTHER
    if not np.all(keep):
        entries = _Entries(*(column[keep] for column in vars(entries).values()))
    return entries, pools, streams


def _device(
    device: int,
    trace: list[dict[str, Any]],
    segments: list[dict[str, Any]],
    settings: CachingSettings,
    total: int | None,
) -> Snapshot:
    entries, pools, streams = _columns(trace, segments)
    final = [
        InitialSegment(
            int(s["address"]), int(s["total_size"]), pools[tuple(s.get("segment_pool_id", (0, 0)))],
            s["segment_type"] == "small", streams[s["stream"]], bool(s.get("is_expandable", False)),
            tuple(_blocks(s)),
        )
        for s in segments
    ]  # fmt: skip
    lives = _lives(entries)
    before = segments_before(
        entries.kind, entries.address, entries.nbytes, entries.stream, entries.pool, final, settings
    )
    live = live_before(entries, lives, final, before, settings)
    requests, driver = _requests(entries, lives, live)
    return Snapshot(
        device, requests, settings, len(live.address), live.segments, driver, total, len(trace),
        {"pools": {str(name): number for name, number in pools.items()}, "streams": len(streams)},
    )  # fmt: skip


def _blocks(segment: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """(address, bytes, requested bytes, state) of each block; older snapshots leave out the addresses."""
    out, at = [], int(segment["address"])
    for block in segment["blocks"]:
        out.append((at, int(block["size"]), int(block.get("requested_size", block["size"])), str(block["state"])))
        at += int(block["size"])
    return out


@dataclass
class Lives:
    """Which life of an address each entry about a block belongs to (-1 for other entries); ``first``: its first entry."""

    of_entry: Ints
    first: Ints


def _lives(entries: _Entries) -> Lives:
    """Pair allocations with their frees by address: an ``alloc`` begins a life, as does a free of what was there before."""
    about = np.flatnonzero(entries.kind <= COMPLETED)
    order = about[np.argsort(entries.address[about], kind="stable")]
    begins = entries.kind[order] == ALLOC
    if len(order):
        begins[1:] |= entries.address[order][1:] != entries.address[order][:-1]
        begins[0] = True
    of_entry = np.full(len(entries.kind), -1, np.int64)
    of_entry[order] = np.cumsum(begins) - 1
    return Lives(of_entry, order[begins])


def _requests(entries: _Entries, lives: Lives, live: Any) -> tuple[Requests, DriverEvents]:
    """Requests: the blocks that were live, then the events; and the driver's events, by request."""
    kind, count = entries.kind, len(entries.kind)
    prefix = len(live.address)
    number = np.full(len(lives.first), -1, np.int64)  # block number of each life
    begun = kind[lives.first] == ALLOC
    by_time = np.argsort(lives.first[begun], kind="stable")
    numbers = np.empty(int(begun.sum()), np.int64)
    numbers[by_time] = prefix + np.arange(len(by_time))
    number[begun] = numbers
    number[live.life[live.life >= 0]] = np.flatnonzero(live.life >= 0)
    block = np.where(lives.of_entry >= 0, number[lives.of_entry], 0)
    action = np.full(count, -1, np.int64)
    action[kind == ALLOC] = Action.ALLOCATE
    action[kind == REQUESTED] = Action.FREE_REQUESTED
    action[kind == COMPLETED] = Action.FREE
    plain = np.flatnonzero(
        (kind[:-1] == REQUESTED) & (kind[1:] == COMPLETED) & (entries.address[:-1] == entries.address[1:])
    )
    action[plain] = -1
    waited = kind == COMPLETED
    waited[plain + 1] = False
    needs = _who_needed(entries, waited)
    action[waited & (needs == _PART_OF_NEXT)] = -1
    action[needs == _EMPTIES] = Action.EMPTY_CACHE
    kept = np.flatnonzero(action >= 0)
    event_of_entry = np.searchsorted(kept, np.arange(count)) + prefix
    asked = np.isin(kind, (SEGMENT, SEGMENT_BACK, MAP, UNMAP))
    driver = DriverEvents(
        event_of_entry[asked], kind[asked].astype(np.uint8), entries.address[asked], entries.nbytes[asked]
    )  # fmt: skip
    first = [live.address, live.nbytes, live.stream, live.pool]
    then = [entries.address[kept], entries.nbytes[kept], entries.stream[kept], entries.pool[kept]]
    address, nbytes, stream, pool = (np.concatenate(pair) for pair in zip(first, then, strict=True))
    actions = np.concatenate([np.zeros(prefix, np.int64), action[kept]])
    allocates = actions == Action.ALLOCATE
    requests = Requests(
        actions.astype(np.uint8), np.concatenate([np.arange(prefix), block[kept]]), np.where(allocates, nbytes, 0),
        stream.astype(np.int32), pool.astype(np.int32), np.where(allocates, address, -1), meta={"source": "snapshot"},
    )  # fmt: skip
    return requests, driver


_PART_OF_NEXT, _EMPTIES = 1, 2


def _who_needed(entries: _Entries, waited: npt.NDArray[np.bool_]) -> Ints:
    """What each entry belongs to: the request after it (driver events and waiting frees on its way), or a cache emptied.

    Runs of driver events and waited-for frees are looked at whole. One that gives memory back and gets some before the
    next ``alloc`` is that request's; one that gives segments back without getting any is an emptied cache, said by its
    last entry. Pages given back right before an ``alloc`` may be either, which the check finds out.
    """
    kind = entries.kind
    out = np.zeros(len(kind), np.int64)
    returned = np.flatnonzero((kind == SEGMENT_BACK) | (kind == UNMAP))
    if not len(returned):
        return out
    inside = np.isin(kind, (SEGMENT, SEGMENT_BACK, MAP, UNMAP)) | waited
    handled = -1
    for entry in returned.tolist():
        if entry <= handled:
            continue
        begin = entry
        while begin > 0 and waited[begin - 1]:
            begin -= 1
        end = entry
        while end < len(kind) and inside[end] and not waited[end]:
            end += 1
        handled = end - 1
        got = np.flatnonzero((kind[entry:end] == SEGMENT) | (kind[entry:end] == MAP))
        pages = bool(np.any(kind[entry:end] == UNMAP))
        if (len(got) or pages) and end < len(kind) and kind[end] == ALLOC:
            out[begin:end] = _PART_OF_NEXT
        else:
            out[end - 1] = _EMPTIES
    return out
