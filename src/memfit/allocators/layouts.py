"""One program's memory laid out four ways: in fixed pages, in segments, by a plan, and by torch's caching allocator.

    paged       |##|##|#.|##|..|        any free page serves: nothing is lost between pages, the last page of each buffer
                                        is part empty, and every page needs an entry of a page table
    segmented   |#####|...|###|..|      a buffer is one range with base and limit, in the first hole that fits: nothing is
                                        lost inside, holes are lost between
    planned     |#####||###||##|        offsets known beforehand: what is lost is what the planner could not close
    caching     |#####.|###...|         blocks kept for reuse in segments of a driver's size: some of both

All see the same requests. Of each: bytes reserved at its peak, split at the moment at which the program has most bytes
live: live + inside (rounding up) + between (free, and kept) = reserved. Beside them the bytes of its own bookkeeping at
their peak. Everything is projected. Cost: O(events x log holes), and that of planning.

Metadata, counted as follows. Paged: 8 bytes an entry of the page tables, as of x86-64, and one bit a page of a free map.
Segmented: base, limit and protection, 24 bytes a live segment, and 16 a hole. Planned: 8 bytes an offset, of every
buffer. Caching: 184 bytes a live block, the size of torch's record of one; its records of free blocks come on top.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from memfit.allocators.caching import CachingPolicy
from memfit.allocators.fits import FitPolicy
from memfit.allocators.policy import Ints, live_bytes
from memfit.allocators.serving import check_requests
from memfit.errors import ProblemError
from memfit.ir.requests import Action, Requests
from memfit.planners.portfolio import plan_problem
from memfit.planners.problem import simple_problem
from memfit.planners.validate import why_invalid
from memfit.units import align, format_bytes

PAGES = (4096, 2 << 20)
ALIGNMENT = 64
ENTRY, DESCRIPTOR, HOLE, OFFSET, BLOCK = 8, 24, 16, 8, 184
SMALLEST_PAGE = 64

Progress = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes [low, high) that hold (a part of) a block at the moment drawn; ``used``: how many of them it asked for."""

    low: int
    high: int
    used: int
    block: int


@dataclass(frozen=True)
class Layout:
    """``reserved`` = ``live`` + ``inside`` + ``between``; ``metadata`` on top. ``regions``: at the moment, by address."""

    name: str
    title: str
    how: str
    reserved: int
    live: int
    inside: int
    metadata: int
    regions: tuple[Region, ...] = ()

    @property
    def between(self) -> int:
        """Bytes reserved that no block holds: external fragmentation."""
        return self.reserved - self.live - self.inside

    @property
    def fragmentation(self) -> float:
        """1 - peak live / peak reserved."""
        return 1.0 - self.live / self.reserved if self.reserved else 0.0


@dataclass(frozen=True)
class Comparison:
    """``layouts`` of one program. ``event``: the moment of most live bytes; ``bound``: proved, that of the plan."""

    layouts: tuple[Layout, ...]
    peak_live: int
    event: int
    events: int
    blocks: int
    bound: int


def compare_layouts(
    requests: Requests, pages: Sequence[int] = PAGES, *, time_limit: float = 5.0, progress: Progress | None = None
) -> Comparison:
    """The layouts of one program's requests.

    Args:
        requests: what the program asks for.
        pages: bytes of a page, each a power of two from 64 up; one paged layout each.
        time_limit: CPU seconds of planning.

    Raises:
        TraceError: requests that no program can have made.
        ProblemError: a page that is none, or nothing to lay out.
    """
    say = progress or (lambda text, done, total: None)
    for page in pages:
        if page < SMALLEST_PAGE or page & (page - 1):
            why = f"a page of {page} bytes is none"
            raise ProblemError("in pages", why, "write a power of two from 64 bytes up, such as 4KiB or 2MiB")
    if not check_requests(requests):
        raise ProblemError("these requests", "they allocate nothing", "is it an empty trace?")
    begin, end, size = spans(requests)
    live = live_bytes(_plain(requests))
    moment = int(np.argmax(live))
    peak = int(live[moment])
    alive = np.flatnonzero((begin <= moment) & (moment < end))
    made: list[Layout] = []
    for page in pages:
        say(f"laying out in pages of {format_bytes(page)}", None, None)
        made.append(_paged(requests, page, moment, peak, alive, size))
    say("laying out in segments", None, None)
    made.append(_segmented(requests, moment, peak, alive, size))
    say("planning", None, None)
    planned, bound = _planned(begin, end, size, peak, alive, time_limit)
    made.append(planned)
    say("laying out with torch's caching allocator", None, None)
    made.append(_caching(requests, moment, peak, alive, size))
    return Comparison(tuple(made), peak, moment, len(requests), len(size), bound)


def spans(requests: Requests) -> tuple[Ints, Ints, Ints]:
    """Of each block the event that allocates it, the event that frees it (or the number of events), and its bytes."""
    allocates = requests.action == Action.ALLOCATE
    begin = np.flatnonzero(allocates).astype(np.int64)
    end = np.full(len(begin), len(requests), np.int64)
    frees = np.flatnonzero(requests.action == Action.FREE)
    end[requests.block[frees[::-1]]] = frees[::-1]
    return begin, end, requests.nbytes[allocates].astype(np.int64)


def _plain(requests: Requests) -> Requests:
    """Allocations and frees alone: a block is live until it may be used again, in every layout alike."""
    kept = (requests.action == Action.ALLOCATE) | (requests.action == Action.FREE)
    if kept.all():
        return requests
    action = np.where(kept, requests.action, Action.EMPTY_CACHE).astype(np.uint8)
    return Requests(
        action, requests.block, requests.nbytes, requests.stream, requests.pool, requests.address, requests.label
    )


class PageFrames:
    """Frames handed out lowest first, as runs: [first, end) of each; ``top``: frames ever in use."""

    def __init__(self) -> None:
        self.top = self.used = 0
        self.free: list[tuple[int, int]] = []

    def take(self, count: int) -> list[tuple[int, int]]:
        """``count`` frames, from the lowest free ones. Cost: O(runs taken x log runs)."""
        self.used += count
        runs: list[tuple[int, int]] = []
        while count and self.free:
            first, end = self.free[0]
            taken = min(count, end - first)
            runs.append((first, first + taken))
            if first + taken == end:
                del self.free[0]
            else:
                self.free[0] = (first + taken, end)
            count -= taken
        if count:
            runs.append((self.top, self.top + count))
            self.top += count
        return runs

    def give(self, runs: Sequence[tuple[int, int]]) -> None:
        """Frames back, joined with the free ones that they touch."""
        for first, end in runs:
            self.used -= end - first
            at = bisect_left(self.free, (first, end))
            if at < len(self.free) and self.free[at][0] == end:
                end = self.free.pop(at)[1]
            if at and self.free[at - 1][1] == first:
                first = self.free.pop(at - 1)[0]
            insort(self.free, (first, end))


def _paged(requests: Requests, page: int, moment: int, peak: int, alive: Ints, size: Ints) -> Layout:
    frames = PageFrames()
    held: dict[int, list[tuple[int, int]]] = {}
    drawn: dict[int, list[tuple[int, int]]] = {}
    for event, (action, block, nbytes) in enumerate(
        zip(requests.action.tolist(), requests.block.tolist(), requests.nbytes.tolist(), strict=True)
    ):
        if action == Action.ALLOCATE:
            held[block] = frames.take(-(-nbytes // page))
        elif action == Action.FREE and block in held:
            frames.give(held.pop(block))
        if event == moment:
            drawn = dict(held)
    regions: list[Region] = []
    inside = 0
    for block in alive.tolist():
        left = int(size[block])
        for first, end in drawn.get(block, ()):
            used = min(left, (end - first) * page)
            left -= used
            regions.append(Region(first * page, end * page, used, block))
            inside += (end - first) * page - used
    metadata = ENTRY * frames.top + -(-frames.top // 8)
    return Layout(
        f"paged-{page}", f"paged, {format_bytes(page)} pages",
        f"fixed pages of {format_bytes(page)} anywhere, found through a page table",
        frames.top * page, peak, inside, metadata, tuple(sorted(regions, key=lambda r: r.low)),
    )  # fmt: skip


def _segmented(requests: Requests, moment: int, peak: int, alive: Ints, size: Ints) -> Layout:
    found = FitPolicy("first", alignment=ALIGNMENT, granule=ALIGNMENT).replay(requests, series=True)
    assert found.series is not None
    begin = np.flatnonzero(requests.action == Action.ALLOCATE)
    low = found.series.address[begin[alive]]
    regions = _regions(low, np.array([align(int(s), ALIGNMENT) for s in size[alive]], np.int64), size[alive], alive)
    live, holes = _most_segments(requests, found.series.address)
    return Layout(
        "segmented", "segmented, first fit", "one range a buffer, base and limit, in the first hole that fits",
        found.peak_reserved, peak, _rounded(regions), DESCRIPTOR * live + HOLE * holes, regions,
    )  # fmt: skip


def _most_segments(requests: Requests, address: Ints) -> tuple[int, int]:
    """The most live segments, and the most holes between them, at any event."""
    starts: list[int] = []
    ends: dict[int, int] = {}
    place: dict[int, int] = {}
    most = most_holes = holes = 0

    def gap(left: int, right: int) -> int:
        """1 where there is a hole between two neighbours (or the bottom and the lowest)."""
        return int(right > left)

    for action, block, nbytes, at in zip(
        requests.action.tolist(), requests.block.tolist(), requests.nbytes.tolist(), address.tolist(), strict=True
    ):
        if action == Action.ALLOCATE and at >= 0:
            index = bisect_left(starts, at)
            below = ends[starts[index - 1]] if index else 0
            end = at + align(nbytes, ALIGNMENT)
            if index < len(starts):
                holes += gap(end, starts[index]) - gap(below, starts[index])
            holes += gap(below, at)
            starts.insert(index, at)
            ends[at] = end
            place[block] = at
        elif action == Action.FREE and block in place:
            at = place.pop(block)
            index = bisect_left(starts, at)
            below = ends[starts[index - 1]] if index else 0
            holes -= gap(below, at)
            if index + 1 < len(starts):
                holes += gap(below, starts[index + 1]) - gap(ends[at], starts[index + 1])
            del starts[index], ends[at]
        most, most_holes = max(most, len(starts)), max(most_holes, holes)
    return most, most_holes


def _planned(
    begin: Ints, end: Ints, size: Ints, peak: int, alive: Ints, time_limit: float
) -> tuple[Layout, int]:  # fmt: skip
    rounded = -(-size // ALIGNMENT) * ALIGNMENT
    problem = simple_problem(begin, end, rounded, alignment=ALIGNMENT)
    best = plan_problem(problem, time_limit=time_limit).best
    why = why_invalid(problem, best)
    assert not why, why
    regions = _regions(best.offset[alive], rounded[alive], size[alive], alive)
    layout = Layout(
        "planned", "planned", f"offsets known before it runs ({best.strategy}); at least {format_bytes(best.bound)} needed",
        best.peak, peak, _rounded(regions), OFFSET * len(size), regions,
    )  # fmt: skip
    return layout, best.bound


def _caching(requests: Requests, moment: int, peak: int, alive: Ints, size: Ints) -> Layout:
    found = CachingPolicy().replay(requests, series=True)
    assert found.series is not None
    begin = np.flatnonzero(requests.action == Action.ALLOCATE)
    low = found.series.address[begin[alive]]
    inside = max(0, int(found.series.allocated[moment]) - peak)
    taken = np.array([align(int(s), 512) for s in size[alive]], np.int64)
    regions = _regions(low - int(found.series.address[begin].min()), taken, size[alive], alive)
    begun, ended, _ = spans(requests)
    change = np.zeros(len(requests) + 1, np.int64)
    np.add.at(change, begun, 1)
    np.add.at(change, ended, -1)
    return Layout(
        "caching", "torch's caching allocator", "blocks kept for reuse, in segments of 2 MiB, 20 MiB or more",
        max(found.peak_reserved, peak + inside), peak, inside, BLOCK * int(np.cumsum(change).max()), regions,
    )  # fmt: skip


def _regions(low: Ints, taken: Ints, used: Ints, blocks: Ints) -> tuple[Region, ...]:
    order = np.argsort(low, kind="stable")
    rows = zip(low[order].tolist(), taken[order].tolist(), used[order].tolist(), blocks[order].tolist(), strict=True)
    return tuple(Region(at, at + nbytes, asked, block) for at, nbytes, asked, block in rows)


def _rounded(regions: Sequence[Region]) -> int:
    return sum(region.high - region.low - region.used for region in regions)
