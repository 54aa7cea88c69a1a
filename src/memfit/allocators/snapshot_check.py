"""A snapshot replayed by torch's rules from its initial state, every address compared with the one that torch chose.

The driver's part is taken from the snapshot: where new segments lie, and that a request was refused as long as segments
that it gave back are still to come. Everything else (which block serves, what is split and joined, which segments go
back in which order) is the twin's. Cost: the twin's.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace

import numpy as np

from memfit.allocators.caching_columns import SEGMENT_ROUNDING, SMALL_REQUEST, columns_of
from memfit.allocators.caching_driver import UNLIMITED, Driver
from memfit.allocators.caching_settings import CachingSettings
from memfit.allocators.caching_twin import PENDING, USED, CachingTwin
from memfit.allocators.snapshot_reader import MAP, SEGMENT, Snapshot
from memfit.allocators.snapshot_state import ACTIVE, INACTIVE, InitialSegment
from memfit.ir.requests import Action

_ELSEWHERE = 1 << 54
_EMPTIED_AT_MOST = 64


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An allocation that the replay put elsewhere. ``event`` in the requests; ``rule``: what is likely at fault."""

    event: int
    expected: int
    got: int
    nbytes: int
    rule: str


@dataclass(frozen=True)
class Mismatches:
    """``checked`` addresses, of which ``differing`` differ; ``first``: the first of them, or None.

    ``reserved_differs``: the first event after which the reserved bytes differ from the snapshot's, or None.
    """

    checked: int
    differing: int
    first: Mismatch | None
    reserved_differs: int | None = None
    learnt: int = 0


class RecordedDriver(Driver):
    """A driver that answers what the snapshot's driver answered."""

    def __init__(self, snapshot: Snapshot, by_age: bool) -> None:
        super().__init__(None)
        self.by_age = by_age
        self.known = [(segment.address, segment.nbytes) for segment in snapshot.segments]
        self.total = snapshot.device_bytes
        self.returns: dict[int, set[int]] = {}
        self.brings: dict[int, list[int]] = {}
        recorded = snapshot.driver
        for event, kind, address in zip(
            recorded.event.tolist(), recorded.kind.tolist(), recorded.address.tolist(), strict=True
        ):
            if kind in (SEGMENT, MAP):
                self.brings.setdefault(event, []).append(address)
            else:
                self.returns.setdefault(event, set()).add(address)
        self.awaited: set[int] = set()
        self.coming: list[int] = []
        self._lost = _ELSEWHERE
        self.begins: list[int] = []  # of each range by age: in the replay's addresses, and really
        self.really: list[int] = []

    @property
    def device_bytes(self) -> int:
        """Bytes of the device, where the snapshot knows."""
        return self.total or UNLIMITED

    @property
    def limited(self) -> bool:
        """Garbage may be collected."""
        return True

    @property
    def refuses(self) -> bool:
        """As long as something is awaited that goes back first (a memory fraction refuses also what needs no page)."""
        return bool(self.awaited)

    def wants_garbage(self, target: int, reclaimed: int) -> bool:
        """As long as segments are awaited."""
        return bool(self.awaited)

    @property
    def releases_for_private(self) -> bool:
        """Where the snapshot gives something back."""
        return bool(self.awaited)

    def takes_private(self, address: int, nbytes: int) -> bool:
        """Where the snapshot gives it back."""
        begin = self.real(address)
        return any(begin <= at < begin + nbytes for at in self.awaited)

    def begin(self, event: int) -> None:
        """The next request is ``event``."""
        self.awaited = self.returns.get(event, set())
        self.coming = list(self.brings.get(event, ()))

    def gives(self, reserved: int, nbytes: int) -> bool:
        """Not while segments are awaited that go back first."""
        return not self.awaited

    def address(self, nbytes: int) -> int:
        """Where the snapshot has the next new range; else somewhere no other is."""
        if self.coming:
            return self.placed(self.coming.pop(0), nbytes)
        self._lost += -(-nbytes // SEGMENT_ROUNDING) * SEGMENT_ROUNDING
        return self.placed(self._lost - nbytes, nbytes)

    def placed(self, really: int, nbytes: int) -> int:
        """The replay's address of a new range that really begins at ``really``."""
        if not self.by_age:
            return really
        begin = super().address(nbytes)
        self.begins.append(begin)
        self.really.append(really)
        return begin

    def real(self, address: int) -> int:
        """Where the replay's ``address`` really is."""
        if not self.by_age:
            return address
        number = bisect_right(self.begins, address) - 1
        return self.really[number] + address - self.begins[number]

    def known_range(self, really: int) -> int:
        """The number of the segment there before that holds an address, or -1."""
        number = bisect_right(self.known, (really, UNLIMITED)) - 1
        inside = number >= 0 and really < self.known[number][0] + self.known[number][1]
        return number if inside else -1

    def mapped(self, address: int, nbytes: int) -> None:
        """Ticks off a mapping of the snapshot."""
        really = self.real(address)
        if really in self.coming:
            self.coming.remove(really)

    def gave_back(self, address: int, nbytes: int) -> None:
        """Ticks off what is awaited."""
        self.awaited.discard(self.real(address))


def check_addresses(snapshot: Snapshot) -> Mismatches:
    """Replay a snapshot by torch's rules and compare every address.

    Equal free blocks are taken from the oldest segment by torch 2.13, by address alone before it; the snapshot does not
    say which torch made it, so the second order is tried where the first does not match. The age of segments that were
    there before the first event is not recorded either: it starts as their order of address, and where a choice between
    two of them shows that one must be older, the replay starts again with that learnt (``Mismatches.learnt`` counts).

    Raises:
        TraceError: requests that no program can make.
    """
    best: Mismatches | None = None
    for settings in _possible(snapshot.settings):
        each = replace(snapshot, settings=settings)
        for found in (_by_age(each), _check(each, _Learnt(None))[0]):
            if found.differing == 0 and found.reserved_differs is None:
                return found
            if best is None or found.differing < best.differing:
                best = found
    assert best is not None
    return best


def _possible(settings: CachingSettings) -> tuple[CachingSettings, ...]:
    """The settings, and where no memory fraction is known, what garbage collection there would be with one."""
    if settings.garbage_collection_threshold and settings.memory_fraction is None:
        return settings, replace(settings, memory_fraction=0.99)
    return (settings,)


@dataclass
class _Learnt:
    """What the snapshot does not say, as far as addresses have shown it.

    ``order``: the segments there before, oldest first (None: ties go by address alone). ``emptied``: events before which
    the cache was emptied. ``longer``: by how much blocks from before are longer than their request rounds to.
    """

    order: list[int] | None
    emptied: set[int] = field(default_factory=set)
    longer: dict[int, int] = field(default_factory=dict)
    steps: int = 0


@dataclass
class _Lesson:
    """What the first difference of a replay teaches: one of these, or nothing."""

    older: int = -1
    younger: int = -1
    block: int = -1
    longer: int = 0
    empties: int = -1


def _by_age(snapshot: Snapshot) -> Mismatches:
    """The replay, started again as long as its first difference teaches something that the snapshot does not say."""
    learnt = _Learnt(list(range(len(snapshot.segments))))
    most = 4 * len(snapshot.segments) + snapshot.prefix + _EMPTIED_AT_MOST
    while True:
        found, lesson = _check(snapshot, learnt)
        order = learnt.order
        if lesson.older >= 0 and order is not None:
            order.insert(order.index(lesson.younger), order.pop(order.index(lesson.older)))
        elif lesson.block >= 0 and lesson.block not in learnt.longer:
            learnt.longer[lesson.block] = lesson.longer
        elif lesson.empties >= 0 and len(learnt.emptied) < _EMPTIED_AT_MOST:
            learnt.emptied.add(lesson.empties)
        else:
            return replace(found, learnt=learnt.steps)
        learnt.steps += 1
        if learnt.steps > most:
            return replace(found, learnt=learnt.steps)


def _check(snapshot: Snapshot, learnt: _Learnt) -> tuple[Mismatches, _Lesson]:
    """One replay under what is ``learnt``, and what its first difference teaches."""
    columns = columns_of(
        snapshot.requests, snapshot.settings, tuple((s.pool, s.small, s.stream) for s in snapshot.segments)
    )
    driver = RecordedDriver(snapshot, by_age=learnt.order is not None)
    twin = CachingTwin(columns.queues, snapshot.settings, driver)
    twin.allowed = UNLIMITED << 8
    slots = restore(twin, driver, snapshot, learnt)
    lesson = _Lesson()
    from_before = {slot: block for block, slot in enumerate(slots)}
    reserved = _recorded_reserved(snapshot)
    checked = differing = 0
    first: Mismatch | None = None
    reserved_differs: int | None = None
    requests, prefix = snapshot.requests, snapshot.prefix
    for event, (action, block, size, queue, address) in enumerate(
        zip(
            columns.action[prefix:].tolist(), columns.block[prefix:].tolist(), columns.rounded[prefix:].tolist(),
            columns.queue[prefix:].tolist(), requests.address[prefix:].tolist(), strict=True,
        ), prefix,
    ):  # fmt: skip
        twin.event = event
        driver.begin(event)
        if action == Action.ALLOCATE:
            if driver.awaited and (event in learnt.emptied or twin.would_find(queue, size)):
                twin.empty_cache()
            calls = twin.driver_allocations
            slot = twin.allocate(queue, size)
            slots.append(slot)
            checked += 1
            got = driver.real(twin.address(slot)) if slot >= 0 else -1
            if got != address:
                differing += 1
                if first is None:
                    if learnt.order is not None and got >= 0 and twin.driver_allocations == calls:
                        _teach(lesson, twin, driver, address, got, slot, from_before)
                    rule = _likely(twin, snapshot, event, queue, size, twin.driver_allocations > calls)
                    first = Mismatch(event, address, got, int(requests.nbytes[event]), rule)
        elif action == Action.EMPTY_CACHE:
            twin.empty_cache()
        elif slots[block] >= 0:
            if action == Action.FREE:
                twin.free(slots[block])
                slots[block] = -1
            else:
                twin.request_free(slots[block], block)
        for freed in twin.synchronised:
            slots[freed] = -1
        twin.synchronised.clear()
        if reserved_differs is None and twin.reserved != reserved[event]:
            reserved_differs = event
        if lesson.empties == -1 and (differing or reserved_differs is not None):
            lesson.empties = event if event in driver.returns and event not in learnt.emptied else -2
    return Mismatches(checked, differing, first, reserved_differs), lesson


def _teach(
    lesson: _Lesson, twin: CachingTwin, driver: RecordedDriver, expected: int, got: int, slot: int,
    from_before: dict[int, int],
) -> None:  # fmt: skip
    """Two segments from before whose age explains the difference, or a block from before that reaches further."""
    older, younger = driver.known_range(expected), driver.known_range(got)
    if min(older, younger) < 0:
        return
    if older != younger:
        lesson.older, lesson.younger = older, younger
    elif 0 < expected - got <= SMALL_REQUEST and twin.before[slot] in from_before and twin.base[slot] < 0:
        lesson.block, lesson.longer = from_before[twin.before[slot]], expected - got


def _recorded_reserved(snapshot: Snapshot) -> list[int]:
    """Bytes reserved after each request, as the snapshot's driver events have it."""
    change = np.zeros(len(snapshot.requests) + 1, np.int64)
    recorded = snapshot.driver
    brings = np.isin(recorded.kind, (SEGMENT, MAP))
    np.add.at(change, recorded.event, np.where(brings, recorded.nbytes, -recorded.nbytes))
    change[0] += sum(segment.nbytes for segment in snapshot.segments)
    return [int(total) for total in np.cumsum(change)]


def restore(twin: CachingTwin, driver: RecordedDriver, snapshot: Snapshot, learnt: _Learnt) -> list[int]:
    """Put the segments that were there before into a fresh twin; returns the slots of the blocks live in them."""
    numbers = {queue: number for number, queue in enumerate(twin.queues)}
    queue_of = [numbers[segment.pool, segment.small, segment.stream] for segment in snapshot.segments]
    live: dict[int, int] = {}
    placed: set[int] = set()
    before = snapshot.requests.address[: snapshot.prefix].tolist()
    longer = {before[block]: nbytes for block, nbytes in learnt.longer.items()}
    for oldest in range(len(queue_of)) if learnt.order is None else learnt.order:
        segment, queue = snapshot.segments[oldest], queue_of[oldest]
        if not segment.expandable:
            slot = twin.place(driver.placed(segment.address, segment.nbytes), segment.nbytes, queue, -1)
            _fill(twin, driver, segment, slot, live, longer)
        elif queue not in placed:
            placed.add(queue)
            ranges = [s for s, q in zip(snapshot.segments, queue_of, strict=True) if q == queue and s.expandable]
            base = driver.placed(ranges[0].address, twin.span(queue)) - ranges[0].address
            for each in ranges:
                _fill(twin, driver, each, twin.place_range(queue, each.address + base, each.nbytes), live, {})
    twin.reserved = sum(segment.nbytes for segment in snapshot.segments)
    slots = [live[address] for address in before]
    for block, slot in enumerate(slots):
        if twin.state[slot] == PENDING:
            twin.request_free(slot, block)
    return slots


def _fill(
    twin: CachingTwin,
    driver: RecordedDriver,
    segment: InitialSegment,
    slot: int,
    live: dict[int, int],
    longer: dict[int, int],
) -> None:
    """Cut the free range at ``slot`` into the blocks of ``segment``; ``live`` gets the slots of those in use."""
    for address, size, _, state in segment.blocks:
        if state == INACTIVE:
            continue
        ahead = address - driver.real(twin.address(slot))
        if ahead > 0:
            rest = twin.cut(slot, ahead)
            twin.insert(slot)
            slot = rest
        size += longer.get(address, 0)
        rest = twin.cut(slot, size) if size < twin.size[slot] else -1
        live[address] = slot
        twin.state[slot] = USED if state == ACTIVE else PENDING
        slot = rest
    if slot >= 0:
        twin.insert(slot)


def _likely(twin: CachingTwin, snapshot: Snapshot, event: int, queue: int, size: int, called: bool) -> str:
    """In words, which rule may be at fault where the first address differs."""
    recorded = snapshot.driver
    mine = recorded.kind[recorded.event == event]
    there = bool(np.any((mine == SEGMENT) | (mine == MAP)))
    pool, small, stream = twin.queues[queue]
    place = f"{'small' if small else 'large'} pool{f' {pool}' if pool else ''}, stream {stream}"
    if there and not called:
        return (
            f"torch asked the driver, the replay found a cached block of the {place}: rounding, split limit or search"
        )
    if called and not there:
        return f"torch found a cached block, the replay asked the driver ({place}): a free, a join or the rounding before it"
    if there:
        return f"both asked the driver ({place}): segment size, or the place inside an expandable segment"
    if len(mine):
        return f"memory was given back on the way ({place}): the order of garbage collection and release"
    return f"both found cached blocks of the {place}: the best fit, or the lowest address among equals"
