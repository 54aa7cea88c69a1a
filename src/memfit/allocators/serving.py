"""Serve Requests with a heap: the loop that every policy's Python twin runs in, and what comes back of a kernel.

A heap decides addresses; the loop keeps the books. Both the twin's loop and the kernels' (``native/core/replay_loop.h``)
do the same, event by event:

* ALLOCATE asks the heap for a range; where it refuses, the replay stops there;
* FREE_REQUESTED ends the block's *live* bytes, FREE gives its range back to the heap (and ends them, without the former);
* EMPTY_CACHE lets the heap give back to the system what it can.

Blocks of all streams share the heap: a range is used again only after FREE, when every stream is done with it. Events
about blocks that are not held change nothing. Cost: O(events) plus the heap's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from memfit.allocators.policy import Replay, ReplaySeries
from memfit.errors import TraceError
from memfit.ir.requests import Action, Requests

LARGEST_REQUEST = 1 << 48
LARGEST_SUM = 1 << 56


class Heap(Protocol):
    """What a twin implements. Bytes: ``reserved`` of the system, ``capacity`` at most. Addresses are bytes from 0 up."""

    reserved: int
    driver_allocations: int
    driver_frees: int

    def allocate(self, nbytes: int) -> tuple[int, int] | None:
        """Address and bytes taken for a request, or None where memory runs out."""

    def free(self, address: int, taken: int) -> None:
        """Take a range back."""

    def empty_cache(self) -> None:
        """Give unused memory back to the system, as the allocator's own call for it would."""

    def segments(self) -> list[tuple[int, int]]:
        """Address and bytes of each stretch of reserved memory."""


class Outcome(NamedTuple):
    """What a kernel returns. ``figures``: peak live, allocated, reserved, driver allocations, driver frees, failed or -1.

    The rest is empty without series: bytes after each event, address and bytes taken at each ALLOCATE, and the segments
    at the reserved peak as (address, bytes) in two columns.
    """

    figures: Any
    live: Any
    allocated: Any
    reserved: Any
    address: Any
    taken: Any
    segment_address: Any
    segment_bytes: Any


@dataclass
class Books:
    """What the twin's loop writes down; see ``Outcome``."""

    figures: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0, -1])
    columns: list[list[int]] = field(default_factory=lambda: [[], [], [], [], []])
    at_peak: list[tuple[int, int]] = field(default_factory=list)


def check_requests(requests: Requests) -> int:
    """The number of blocks; refuses columns that no program can have made, before a kernel reads them.

    Raises:
        TraceError: an unknown action, a block out of range or allocated twice, a size that is zero, negative or beyond
            2^48 bytes, or more than 2^56 bytes asked for in sum.
    """
    action, block, nbytes = requests.action, requests.block, requests.nbytes
    if not len(action) == len(block) == len(nbytes):
        raise TraceError("requests", "their columns have different lengths")
    if not len(action):
        return 0
    allocates = action == Action.ALLOCATE
    numbers = block[allocates]
    count = len(numbers)
    if int(action.max()) > max(Action):
        raise TraceError(f"event {int(action.argmax())}", f"there is no action {int(action.max())}")
    if not np.array_equal(numbers, np.arange(count)):
        raise TraceError("requests", "blocks are not numbered from 0 in order of allocation")
    named = block[action != Action.EMPTY_CACHE]
    if len(named) and (int(named.min()) < 0 or int(named.max()) >= count):
        raise TraceError("requests", "an event names a block that is never allocated")
    sizes = nbytes[allocates]
    if count and (int(sizes.min()) < 1 or int(sizes.max()) > LARGEST_REQUEST):
        worst = int(sizes.min()) if int(sizes.min()) < 1 else int(sizes.max())
        raise TraceError("requests", f"a request of {worst} bytes; sizes are 1 byte to 2^48 bytes (256 TiB)")
    if float(sizes.astype(np.float64).sum()) > LARGEST_SUM and _peak(requests) > LARGEST_SUM:
        raise TraceError("requests", "more than 2^56 bytes are alive at once")
    return count


def _peak(requests: Requests) -> float:
    """Highest sum of sizes between ALLOCATE and FREE, as a float (no overflow)."""
    sizes = requests.nbytes[requests.action == Action.ALLOCATE].astype(np.float64)
    change = np.zeros(len(requests), np.float64)
    change[requests.action == Action.ALLOCATE] = sizes
    frees = requests.action == Action.FREE
    change[frees] = -sizes[requests.block[frees]]
    return float(np.cumsum(change).max())


def serve(heap: Heap, requests: Requests, series: bool) -> Outcome:
    """Run ``requests`` through a twin's heap."""
    books = Books()
    size: dict[int, int] = {}
    held: dict[int, tuple[int, int]] = {}
    live = allocated = 0
    events = zip(requests.action.tolist(), requests.block.tolist(), requests.nbytes.tolist(), strict=True)
    for event, (action, block, nbytes) in enumerate(events):
        address, taken = -1, 0
        if action == Action.ALLOCATE:
            found = heap.allocate(nbytes)
            if found is None:
                books.figures[5] = event
                break
            held[block] = found
            size[block] = nbytes
            address, taken = found
            live += nbytes
            allocated += taken
        elif action == Action.FREE:
            live -= size.pop(block, 0)
            if block in held:
                allocated -= held[block][1]
                heap.free(*held.pop(block))
        elif action == Action.FREE_REQUESTED:
            live -= size.pop(block, 0)
        else:
            heap.empty_cache()
        books.figures[0] = max(books.figures[0], live)
        books.figures[1] = max(books.figures[1], allocated)
        if heap.reserved > books.figures[2]:
            books.figures[2] = heap.reserved
            if series:
                books.at_peak = heap.segments()
        if series:
            for column, value in zip(books.columns, (live, allocated, heap.reserved, address, taken), strict=True):
                column.append(value)
    books.figures[3], books.figures[4] = heap.driver_allocations, heap.driver_frees
    segments = np.array(books.at_peak, np.int64).reshape(-1, 2)
    live_column, allocated_column, *rest = (np.array(column, np.int64) for column in books.columns)
    return Outcome(
        books.figures, live_column, allocated_column, rest[0], rest[1], rest[2], segments[:, 0], segments[:, 1]
    )


def replay_of(name: str, requests: Requests, outcome: Outcome, begun: float, series: bool, heap: str) -> Replay:
    """The Replay that an Outcome is. ``begun``: ``time.process_time`` at the start; ``heap``: what a segment is called.

    The series ends before the event at which memory ran out.
    """
    live, allocated, reserved, calls, frees, failed = (int(figure) for figure in outcome.figures)
    seconds = time.process_time() - begun
    if not series:
        return Replay(name, live, allocated, reserved, calls, frees, None if failed < 0 else failed, seconds)
    from memfit.allocators.stranded import stranded_bytes

    found = ReplaySeries(
        np.asarray(outcome.live), np.asarray(outcome.allocated), np.asarray(outcome.reserved),
        np.asarray(outcome.address),
    )  # fmt: skip
    segments = list(zip(outcome.segment_address.tolist(), outcome.segment_bytes.tolist(), strict=True))
    return Replay(
        name, live, allocated, reserved, calls, frees, None if failed < 0 else failed, seconds, found,
        stranded_bytes(requests, found, np.asarray(outcome.taken), segments, heap), {"segments": len(segments)},
    )  # fmt: skip
