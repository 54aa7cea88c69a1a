"""What a snapshot's allocator held before its first event: the segments at the end, walked back through the events.

A segment was there if it is there at the end and no event brought it, or if its first event gives it back. A block was
live if its first event frees it, or if it is live at the end and no event allocated it. How long such a block was: known
from the end for those still live; else what its request rounds to, or up to its neighbour where what is left between
them is less than the allocator would have split off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.allocators.caching_columns import MINIMUM_BLOCK, SMALL_REQUEST, SMALL_SEGMENT, rounded_sizes
from memfit.allocators.caching_settings import CachingSettings

Ints = npt.NDArray[np.int64]
_SEGMENT, _SEGMENT_BACK, _MAP, _UNMAP = 3, 4, 5, 6
ACTIVE, PENDING, INACTIVE = "active_allocated", "active_pending_free", "inactive"


@dataclass(frozen=True, slots=True)
class InitialSegment:
    """A reserved range. ``blocks``: (address, bytes, requested bytes, state) of each block in it, in order."""

    address: int
    nbytes: int
    pool: int
    small: bool
    stream: int
    expandable: bool
    blocks: tuple[tuple[int, int, int, str], ...] = ()


@dataclass(frozen=True)
class LiveBefore:
    """Blocks that were live before, by address; ``life``: their life among the events, -1 for none."""

    address: Ints
    nbytes: Ints
    stream: Ints
    pool: Ints
    life: Ints
    segments: tuple[InitialSegment, ...]


def segments_before(
    kind: Ints,
    address: Ints,
    nbytes: Ints,
    stream: Ints,
    pool: Ints,
    final: list[InitialSegment],
    settings: CachingSettings,
) -> list[InitialSegment]:
    """The segments before the first event, without blocks, by address. Cost: O(driver events x ranges)."""
    held = {s.address: replace(s, blocks=()) for s in final if not s.expandable}
    ranges = [replace(s, blocks=()) for s in final if s.expandable]
    for entry in np.flatnonzero((kind >= _SEGMENT) & (kind <= _UNMAP))[::-1].tolist():
        at, size = int(address[entry]), int(nbytes[entry])
        if kind[entry] == _SEGMENT:
            held.pop(at, None)
        elif kind[entry] == _SEGMENT_BACK:
            held[at] = InitialSegment(at, size, int(pool[entry]), size == SMALL_SEGMENT, int(stream[entry]), False)
        elif kind[entry] == _MAP:
            ranges = _without(ranges, at, size)
        else:
            small = size % settings.large_segment != 0
            ranges = _with(ranges, InitialSegment(at, size, int(pool[entry]), small, int(stream[entry]), True))
    return sorted([*held.values(), *ranges], key=lambda s: s.address)


def _without(ranges: list[InitialSegment], address: int, nbytes: int) -> list[InitialSegment]:
    out = []
    for held in ranges:
        end = held.address + held.nbytes
        if end <= address or held.address >= address + nbytes:
            out.append(held)
            continue
        if held.address < address:
            out.append(replace(held, nbytes=address - held.address))
        if end > address + nbytes:
            out.append(replace(held, address=address + nbytes, nbytes=end - address - nbytes))
    return out


def _with(ranges: list[InitialSegment], added: InitialSegment) -> list[InitialSegment]:
    """``ranges`` and ``added``, which takes the size class of a neighbour that it touches."""
    out = []
    for held in ranges:
        same = (held.pool, held.stream) == (added.pool, added.stream)
        if same and held.address + held.nbytes == added.address:
            added = replace(held, nbytes=held.nbytes + added.nbytes)
        elif same and added.address + added.nbytes == held.address:
            added = replace(held, address=added.address, nbytes=held.nbytes + added.nbytes)
        else:
            out.append(held)
    return [*out, added]


def live_before(
    entries: Any, lives: Any, final: list[InitialSegment], before: list[InitialSegment], settings: CachingSettings
) -> LiveBefore:
    """The blocks that were live, and the segments ``before`` with their blocks."""
    first_kind = entries.kind[lives.first]
    known: dict[int, tuple[int, int, int, str]] = {}  # address -> requested, life, bytes (0: not known), state
    for life in np.flatnonzero(first_kind != 0).tolist():
        entry = int(lives.first[life])
        state = ACTIVE if first_kind[life] == 1 else PENDING
        known[int(entries.address[entry])] = (int(entries.nbytes[entry]), life, 0, state)
    seen = set(np.unique(entries.address[lives.first]).tolist())
    for segment in final:
        for address, size, requested, state in segment.blocks:
            if state != INACTIVE and address not in seen:
                known[address] = (requested, -1, size, state)
            elif state != INACTIVE and address in known and not _allocated_later(entries, lives, address):
                asked, life, _, was = known[address]
                known[address] = (asked, life, size, was)
    addresses = np.asarray(sorted(known), np.int64)
    segments, rows = [], []
    for segment in before:
        low, high = np.searchsorted(addresses, [segment.address, segment.address + segment.nbytes]).tolist()
        inside = addresses[low:high].tolist()
        if segment.expandable and inside and segment.nbytes % settings.large_segment == 0:
            segment = replace(segment, small=max(known[a][0] for a in inside) <= SMALL_REQUEST)
        blocks = []
        for address, following in pairwise([*inside, segment.address + segment.nbytes]):
            requested, life, size, state = known[address]
            if not size:
                size = _length(max(requested, 1), following - address, segment, settings)
            blocks.append((address, size, requested, state))
            rows.append((address, max(requested, 1), segment.stream, segment.pool, life))
        segments.append(replace(segment, blocks=tuple(blocks)))
    columns = np.asarray(rows, np.int64).reshape(-1, 5)
    return LiveBefore(columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3], columns[:, 4], tuple(segments))


def _allocated_later(entries: Any, lives: Any, address: int) -> bool:
    firsts = lives.first[entries.address[lives.first] == address]
    return bool(np.any(entries.kind[firsts] == 0))


def _length(requested: int, room: int, segment: InitialSegment, settings: CachingSettings) -> int:
    rounded = int(rounded_sizes(np.asarray([requested]), settings)[0])
    splits = segment.small or segment.expandable
    if not splits and rounded >= settings.max_split:
        return room
    least = MINIMUM_BLOCK if splits else SMALL_REQUEST + 1
    return rounded if room - rounded >= least else room
