"""Where free bytes sat at the reserved peak, and why no request could use them.

The trace is replayed by the twin up to the event of the peak; each segment with free bytes then says what it is. Cost:
the twin's replay, then O(blocks).
"""

from __future__ import annotations

from memfit.allocators.caching_columns import Columns
from memfit.allocators.caching_driver import Driver
from memfit.allocators.caching_loop import run
from memfit.allocators.caching_settings import CachingSettings
from memfit.allocators.caching_twin import UNMAPPED, CachingTwin
from memfit.allocators.policy import Stranded
from memfit.units import format_bytes


def stranded_at(columns: Columns, settings: CachingSettings, capacity: int | None, event: int) -> tuple[Stranded, ...]:
    """The segments with free bytes after ``event``, most first."""
    twin = CachingTwin(columns.queues, settings, Driver(capacity))
    run(twin, columns, event + 1)
    wanted = int(columns.rounded[event])
    queue = int(columns.queue[event])
    gone = {slot for unused in twin.unused for slot in unused}
    heads = [slot for slot, before in enumerate(twin.before) if before < 0 and slot not in gone]
    segments = [_segment(twin, slot, queue, wanted) for slot in heads]
    found = [each for each in segments if each is not None]
    return tuple(sorted(found, key=lambda each: (-each.free_bytes, each.segment)))


def _segment(twin: CachingTwin, first: int, queue: int, wanted: int) -> Stranded | None:
    total = free = largest = used = waiting = slots = 0
    at = first
    while at >= 0:
        size = twin.size[at]
        if twin.key[at]:
            total += size
            free += size
            largest = max(largest, size)
            slots += 1
        elif twin.state[at] != UNMAPPED:
            total += size
            waiting += at in twin.pending
            used += at not in twin.pending
        at = twin.after[at]
    if not free:
        return None
    why = _why(twin, twin.queue_of[first], queue, wanted, largest, used, waiting, slots)
    return Stranded(twin.address(first), total, free, largest, why)


def _why(
    twin: CachingTwin, mine: int, queue: int, wanted: int, largest: int, used: int, waiting: int, holes: int
) -> str:
    """The first reason that keeps the request for ``wanted`` bytes of ``queue`` out of a segment of queue ``mine``."""
    pool, small, stream = twin.queues[mine]
    asked_pool, asked_small, asked_stream = twin.queues[queue]
    asked = format_bytes(wanted)
    if pool != asked_pool:
        reason = f"it belongs to {_pool(pool)}, the request for {asked} to {_pool(asked_pool)}"
    elif small != asked_small:
        reason = f"it holds {'small' if small else 'large'} blocks only (small: up to 1 MiB); {asked} were asked for"
    elif stream != asked_stream:
        reason = f"it belongs to stream {stream}, the request for {asked} to stream {asked_stream}"
    elif largest < wanted:
        reason = f"its largest hole of {format_bytes(largest)} is smaller than the {asked} asked for"
    elif wanted < twin.max_split <= largest:
        reason = f"blocks from max_split_size_mb on serve no smaller request ({asked})"
    else:
        reason = f"what the request for {asked} left over"
    kept = f"; {used} {'block' if used == 1 else 'blocks'} in use hold it" if used else "; wholly free, kept for later"
    also = f", {waiting} wait for another stream" if waiting else ""
    return f"{reason}{kept} ({holes} {'hole' if holes == 1 else 'holes'}{also})"


def _pool(number: int) -> str:
    return f"private pool {number}" if number else "the default pool"
