"""Watches a running program: counts what repeats, samples how much is held, and looks closely at a few moments.

    every turn          a counter; a sample of the levels, at first always, then once in 2.5 % more turns
    from step 3         a look (``leak_census``): containers, types, names; at once where it holds more from step to step, else
                        when its share of the time allows; more of them while it holds more than before
    once it grows       two windows of a few steps: who grows on which line, what is born on which line
    when a loop ends    the judgement (``leak_judge``), while the variables of its function are still there

Which counter is the step is decided by what repeats (``leak_sources``). What the watching allocates is measured and taken
off. Cost: about 40 samples for every doubling of the steps, 50 us each; a look, 20 to 30 ms per 100,000 objects. A program
that holds more than before is looked at a second time, from step 12 on, and traced; then again whenever all looks together
come to no more than 2 % of the time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from memfit.ir.leak import WorkerAccount
from memfit.machine.own_code import is_users_file
from memfit.observe.birth_window import BirthWindow, LineWindow, Wanted
from memfit.observe.compiled_containers import length_of
from memfit.observe.leak_census import Look, named_sizes, take
from memfit.observe.leak_leaves import Untracked, untracked
from memfit.observe.leak_meter import BLOCK_BYTES, Level, Meter, worker_bytes
from memfit.observe.leak_rise import Rise, rises
from memfit.observe.leak_sources import FLOOR, Source, leader_of, process_slope
from memfit.observe.leak_suspects import LEAST_RATE, growing_caches, growing_containers, growing_tables
from memfit.observe.own_objects import own_addresses
from memfit.observe.probes import Probes
from memfit.observe.retention import program_roots
from memfit.runtime.living import Survey

WINDOW_STEPS = 3
_IDLE = 8
"""Turns of others after which a loop whose steps are traced is taken to have ended."""
_MOST_LOOKS = 12
_FREE_LOOKS = 2
_QUICK = 0.3
"""Elements per step from which a container's growth is looked into although the process does not grow."""
_ALLOWANCE = 0.05
"""CPU seconds that looks may come to, beside their share of the time."""
_FIRST_ALLOWANCE, _SECOND_ALLOWANCE = 0.1, 0.3
"""The same for the first two looks at a service: small programs are looked at at once, large ones later."""
_WITH_WINDOWS = 3
"""What the second look and the windows after it cost, in first looks."""
_FACTOR = 1.7
_FIRST, _SECOND = 3, 12
"""Steps at which the first two looks are due; no step is traced before the second: what first steps make seldom repeats."""
_DENSITY, _SPARSE = 40, 12
_FIRST_TIME = 8
_JUDGE_FROM, _JUDGE_LOOKS = 40, 250
"""Steps, and times of the last look, after which a growing program is judged while it runs: ten looks' time in 4 %."""
_LOOK_PER_BLOCK = 2e-7
"""Seconds of a first look, for each block that Python's allocator has handed out."""


class Watcher:
    """One watching of one process.

    ``probes``: made anew at each look, for what is imported by then; ``closely``: also trace a few steps; ``share``: of
    the time, for looks; ``patient``: the first two looks wait until their share of the time has passed, as later ones do.
    """

    def __init__(
        self, probes: Callable[[], Probes], *, closely: bool = True, share: float = 0.02, patient: bool = False
    ) -> None:
        self.probes = probes
        self.meter = Meter()
        self.sources: dict[Any, Source] = {}
        self.looks: list[Look] = []
        self.shared: set[int] = set()
        self.tracked: dict[int, tuple[Any, list[tuple[int, int]]]] = {}
        self.line_window: LineWindow | None = None
        self.birth_window: BirthWindow | None = None
        self.workers: dict[int, list[tuple[int, int]]] = {}
        self.own_seconds = self._look_seconds = 0.0
        self.began = time.perf_counter()
        self.lost = 0.0
        self.on_look: Callable[[], None] = lambda: None
        self.on_sample: Callable[[Source], None] = lambda source: None
        self.account_of: Callable[[int], WorkerAccount | None] = lambda pid: None
        self.judged_at: dict[str, int] = {}
        self.untracked: Untracked | None = None
        self._closely, self._share, self._patient = closely, share, patient
        self._window_end = 0
        self._line_from: tuple[Source, int]
        self._idle = 0
        self._busy = threading.Lock()
        self._pid = os.getpid()
        self._next_workers = self._workers_seconds = 0.0
        self._next_workers_step = 0
        self.faults: list[str] = []
        self.active = True
        self._tracked_by: Source | None = None
        self._rise: tuple[Source, Rise, Rise] | None = None
        self._traced: tuple[Source, int] | None = None
        self.judge_due = False
        """Whether a judgement while the program runs is worth its time: one that is killed is judged no more."""
        self._judge_from = _JUDGE_FROM

    # -- turns ---------------------------------------------------------------------------------------------------

    def clock(self) -> float:
        """Seconds of the program: those that went into looking at it are left out."""
        return time.perf_counter() - self.lost

    def turn(self, key: Any, name: str = "", kind: str = "declared", depth: int = 0) -> None:
        """The source ``key`` has begun another step."""
        source = self.sources.get(key)
        if source is None:
            source = self.sources[key] = Source(name or str(key), kind, depth, first=self.clock())
        self.turn_of(source)

    def turn_of(self, source: Source) -> None:
        """A known source has begun another step."""
        source.count += 1
        if source.count >= source.next_count and self.active:
            self._sample(source, self.clock())

    def _sample(self, source: Source, now: float) -> None:
        if os.getpid() != self._pid:
            self.active = False
            return
        if not self._busy.acquire(blocking=False):
            return
        spent = time.thread_time()
        try:
            source.last = now
            leader = self._window_leader(source) or self.leader()
            if leader is source and self.looks and source.name not in self.looks[0].counts:
                self._begin_anew()
            if leader is not source and leader is not None and leader.kind != source.kind:
                source.next_count = source.count + max(1, source.count // 8)
                return
            level = self.meter.read()
            source.samples.add(source.count, now, level.heap, level.python, level.resident)
            self.on_sample(source)
            if leader is source:
                if self._tracked_by is not source:
                    for _, points in self.tracked.values():
                        points.clear()
                    self._tracked_by = source
                for thing, points in self.tracked.values():
                    length = length_of(thing)
                    if length >= 0:
                        points.append((source.count, length))
                self._workers(source, now)
            density = _DENSITY if leader is source else _SPARSE
            source.next_count = source.count + max(1, source.count // density)
            if self.tracked or self.workers:
                self.meter.exclude(level)  # the sample itself
            else:
                self.meter.exclude_numbers(len(source.samples.columns()))
            if leader is source:
                self._closer(source, level)
                self._note_judgement_due(source)
            self.own_seconds += time.thread_time() - spent
        except Exception as error:  # the program must not notice a fault of its watching
            self.active = False
            self.faults.append(
                f"the watching failed at step {source.count} ({type(error).__name__}: {error}); please report it"
            )
            with contextlib.suppress(Exception):
                self.close_windows()
        finally:
            self.lost += self.clock() - now
            self._busy.release()

    def _window_leader(self, source: Source) -> Source | None:
        """The source whose steps are traced, while they are: they take longer than others. None once it turns no more."""
        if not self._window_end:
            return None
        traced = self._line_from[0]
        self._idle = 0 if source is traced else self._idle + 1
        if self._idle <= _IDLE:
            return traced
        self.close_windows()
        return None

    def _begin_anew(self) -> None:
        """These steps began after the first look: what was seen before, while the program was built up, tells nothing."""
        self.close_windows()
        self.looks, self.tracked, self.shared = [], {}, set()
        self.line_window = self.birth_window = self._traced = self.untracked = self._rise = None

    def leader(self) -> Source | None:
        """The source whose turns are the steps, as far as can be told now."""
        return leader_of(self.sources.values())

    # -- looks and windows ---------------------------------------------------------------------------------------

    def _holds_more(self, source: Source, level: Level) -> bool:
        """Whether the process holds more than it did, at the rate that matters; otherwise there is nothing to look for."""
        if self._rise is None or self._rise[0] is not source or (not self.looks and source.count < _FIRST):
            self._rise = source, Rise(source.count, level.held), Rise(source.count, level.resident, resident=True)
            return False
        _, held, resident = self._rise
        return any([held.goes_on(source.count, level.held), resident.goes_on(source.count, level.resident)])

    def _closer(self, source: Source, level: Level) -> None:
        if self._window_end:
            source.next_count = 0
            if source.count >= self._window_end:
                self._next_window(source)
            return
        more = self._holds_more(source, level)
        if not (self._further_look_due(source, more) if self.looks else self._first_look_due(source, level, more)):
            return
        before, began = self.meter.read(), time.thread_time()
        seen = self.look()
        self._look_seconds = time.thread_time() - began
        if self._closely and len(self.looks) >= 2 and self.line_window is None:
            self._trace_if_growing(source, seen)
        del seen
        self._rise = None  # a look leaves resident memory behind
        self.meter.exclude(before)
        self.on_look()
        if self.line_window is not None and self.line_window.open:
            self.line_window.begin_here()

    def _note_judgement_due(self, source: Source) -> None:
        if (
            source.count < self._judge_from
            or self.birth_window is None
            or self._window_end
            or len(self.looks) < _FREE_LOOKS
        ):
            return
        if self.clock() - source.first >= _JUDGE_LOOKS * self._look_seconds and process_slope(source).growing:
            self._judge_from, self.judge_due = 3 * source.count, True

    def _first_look_due(self, source: Source, level: Level, more: bool) -> bool:
        if source.count < (_FIRST_TIME if source.kind == "time" else _FIRST):
            return False
        cost, allowed = _LOOK_PER_BLOCK * level.python / BLOCK_BYTES, self._share * (self.clock() - source.first)
        if more or rises(source.samples, _FIRST):
            return not self._patient or cost <= _FIRST_ALLOWANCE + allowed
        return allowed >= cost

    def _further_look_due(self, source: Source, more: bool) -> bool:
        last = self.looks[-1].counts.get(source.name, 0)
        due = _FACTOR * last if len(self.looks) > 1 else min(_FACTOR * last, last + _SECOND - _FIRST)
        if source.count < max(_SECOND, due) or not more:
            return False
        elapsed = self.clock() - source.first
        if self._patient and len(self.looks) < _FREE_LOOKS:  # the steps that are traced after it cost as much again
            return self.own_seconds + _WITH_WINDOWS * self._look_seconds <= _SECOND_ALLOWANCE + self._share * elapsed
        affordable = self.own_seconds + self._look_seconds <= _ALLOWANCE + self._share * elapsed
        return len(self.looks) < _FREE_LOOKS or affordable

    def look(self) -> Survey:
        """Look now; returns what was seen."""
        level = self.meter.read()
        probes = self.probes()
        named = named_sizes(_names(), probes.size)
        counts = {source.name: source.count for source in self.sources.values()}
        registers = {one.holder: one.entries for one in probes.registers()}
        look, seen = take(counts, named, (level.held, level.resident), registers)
        if not self.looks:
            self.shared = probes.shared(seen.of_kind)
        if len(self.looks) > 1:
            self.looks[-1] = self.looks[-1].thinned()
        self.looks.append(look)
        if len(self.looks) > _MOST_LOOKS:
            del self.looks[2]
        return seen

    def _trace_if_growing(self, source: Source, seen: Survey) -> None:
        """Open the windows, unless neither the process nor any container holds more than at an earlier look."""

        def steps(look: Look) -> int:
            return look.counts.get(source.name, 0)

        last = self.looks[-1]
        span = max(1, steps(last) - steps(self.looks[-2]))
        more = any(
            max(last.held - look.held, last.resident - look.resident) >= FLOOR * max(1, steps(last) - steps(look))
            for look in self.looks[:-1]
        )
        own = own_addresses(seen, [id(thing) for thing, _ in self.tracked.values()])
        suspects = [s for s in growing_containers(self.looks[-2:], seen, steps, own) if s.rate >= LEAST_RATE]
        suspects += growing_tables(self.looks[-2:], steps)
        suspects += growing_caches(self.looks[-2:], seen, steps)
        if not more and all(suspect.rate < _QUICK for suspect in suspects):
            return
        self.untracked = untracked(source, seen, self.probes(), own)
        for suspect in suspects[:200]:
            self.tracked[id(suspect.thing)] = (suspect.thing, list(suspect.points))
        before, after = self.looks[-2].types.by_type, last.types.by_type
        kinds = {kind for kind, number in after.items() if number - before.get(kind, 0) >= 0.5 * span}
        things = [suspect.thing for suspect in suspects[:24]]
        self.line_window = LineWindow(things, lambda: self.meter.read().heap)
        names = {name for name, size in last.named.items() if size > self.looks[-2].named.get(name, size)}
        self.birth_window = BirthWindow(
            Wanted(things, kinds, names, self.untracked.kept), last, self.probes(), self.shared
        )
        self._window_end = source.count + WINDOW_STEPS
        self._line_from, self._tracked_by = (source, source.count), source
        if not self.line_window.start(users_frame()):
            self._window_end = source.count
        source.next_count = 0

    def _next_window(self, source: Source) -> None:
        assert self.line_window is not None
        assert self.birth_window is not None
        if self.line_window.open or not self.birth_window.started:
            self.line_window.stop()
            self._traced = self._line_from[0], max(1, self._line_from[0].count - self._line_from[1])
            before = self.meter.read()
            if self.birth_window.start():
                self.meter.exclude(before)
                self._line_from, self._window_end = (source, source.count), source.count + WINDOW_STEPS
                return
        self.close_windows()

    def line_steps(self, source: Source) -> float:
        """How many steps of ``source`` the lines were traced for."""
        if self._traced is None:
            return 1.0
        by, steps = self._traced
        return steps if by is source else max(1e-3, steps * source.count / by.count)

    @property
    def tracing(self) -> bool:
        """Whether a window is open."""
        return bool(self._window_end)

    def hurry(self) -> None:
        """The open window has been open for long enough: close it, and open the next."""
        if self._window_end and self._busy.acquire(blocking=False):
            try:
                self._next_window(self._line_from[0])
            finally:
                self._busy.release()

    def close_windows(self) -> None:
        """End what is open; what was found stays."""
        if self.line_window is not None:
            self.line_window.stop()
        if self.birth_window is not None:
            before = self.meter.read()
            self.birth_window.stop()
            self.meter.exclude(before)
        self._window_end = 0

    def _workers(self, source: Source, now: float) -> None:
        """Read what worker processes hold: in time, and in steps where these are quick, so that a short run is judged too."""
        affordable = self._workers_seconds <= 2 * _ALLOWANCE + self._share * (now - self.began)
        if now < self._next_workers and not (source.count >= self._next_workers_step and affordable):
            return
        began = time.thread_time()
        for pid, nbytes in worker_bytes().items():
            points = self.workers.setdefault(pid, [])
            if len(points) < 2000:
                points.append((source.count, nbytes))
        cost = time.thread_time() - began
        self._workers_seconds += cost
        self._next_workers_step = source.count + max(4, source.count // _SPARSE)
        patience = 2 if max(map(len, self.workers.values()), default=99) < 24 else 60  # enough to judge, then seldom
        self._next_workers = now + max(patience * cost, 0.02, (now - self.began) / 200)

    def leave_child(self) -> None:
        """In a forked child: nothing is counted or traced any more, and nobody is asked anything."""
        self.active = False
        if self.line_window is not None:
            self.line_window.stop()
        if self.birth_window is not None:
            self.birth_window.abandon()
        self._window_end = 0

    def close(self) -> None:
        """Stop; nothing is counted from now on."""
        self.close_windows()
        self.active = False


def _names() -> Any:
    return ((root.name, root.value) for root in program_roots() if not callable(root.value) or root.rank == 0)


def users_frame() -> FrameType | None:
    """The innermost frame of this thread that runs a file of the user's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users_file(frame.f_code.co_filename):
        frame = frame.f_back
    return frame
