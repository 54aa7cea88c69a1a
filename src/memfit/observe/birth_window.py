"""Watch a few steps closely: which line makes the objects that pile up, and which line puts them where they stay.

Two windows, each a few steps long, opened only once something is known to grow. In the first, lines of the user's own
files are traced in the thread that steps, and after each line the lengths of the growing containers and malloc's bytes in
use are compared with before: what changed is that line's. In the second, ``tracemalloc`` notes where every object is
made; at its end the new objects are asked. Cost: the first about 0.5 us a traced line and container, the second 1.5 to 3
times the step's time; both end early after ``LONGEST`` seconds.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

from memfit.machine.own_code import is_users_file
from memfit.observe.birth_lines import BirthLines, born_at
from memfit.observe.compiled_containers import length_of
from memfit.observe.held_bytes import newest
from memfit.observe.leak_census import Look
from memfit.observe.line_owners import owner_in_line
from memfit.observe.named_values import named_values
from memfit.observe.probes import Probes
from memfit.runtime.living import survey

LONGEST = 6.0
_FRAMES = 12
_MOST_EVENTS = 60_000
_MOST_CONTAINERS = 24
_SAMPLED = 30
_SECONDS = 0.5
"""For asking where things were made; containers first, then names, then kinds of objects."""


class LineWindow:
    """Attributes changes to lines; ``heap`` reads malloc's bytes in use."""

    def __init__(self, containers: Sequence[Any], heap: Callable[[], int]) -> None:
        self._containers = list(containers)[:_MOST_CONTAINERS]
        self._lengths = [length_of(thing) for thing in self._containers]
        self._heap = heap
        self._last_heap = 0
        self._at: tuple[str, int] | None = None
        self._events = 0
        self._until = 0.0
        self._frames: list[FrameType] = []
        self.grown: dict[int, Counter[tuple[str, int]]] = {id(thing): Counter() for thing in self._containers}
        self.heap_by_line: Counter[tuple[str, int]] = Counter()
        self.functions: dict[tuple[str, int], str] = {}
        self.owners: dict[tuple[str, int], tuple[str, str]] = {}
        self.open = False

    def start(self, frame: FrameType | None) -> bool:
        """Begin; False where somebody else traces already, or where no code of the user's is running in this thread."""
        if sys.gettrace() is not None or frame is None:
            return False
        self._until = time.perf_counter() + LONGEST
        while frame is not None:
            if is_users_file(frame.f_code.co_filename) and frame.f_trace is None:
                frame.f_trace = self._local
                self._frames.append(frame)
                if self._at is None:
                    self._at = (frame.f_code.co_filename, frame.f_lineno)
            frame = frame.f_back
        self._last_heap = self._heap()
        self.open = True
        sys.settrace(self._call)
        return True

    def begin_here(self) -> None:
        """What happened until now is nobody's."""
        self._last_heap = self._heap()

    def stop(self) -> None:
        """End; what was found stays."""
        if self.open:
            self.open = False
            if sys.gettrace() == self._call:
                sys.settrace(None)
            for frame in self._frames:
                frame.f_trace = None
            self._frames = []
            self._containers = []

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not is_users_file(frame.f_code.co_filename):
            return None
        self._note((frame.f_code.co_filename, frame.f_lineno))
        return self._local

    def _local(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            line = frame.f_code.co_filename, frame.f_lineno
            self._note(line)
            if line not in self.functions:
                self.functions[line] = frame.f_code.co_qualname
                self.owners[line] = owner_in_line(frame)
                self.begin_here()
        elif event == "return":
            above = frame.f_back
            if above is not None and is_users_file(above.f_code.co_filename):
                self._note((above.f_code.co_filename, above.f_lineno))
        return self._local

    def _note(self, following: tuple[str, int]) -> None:
        heap = self._heap()
        if self._at is not None:
            self.heap_by_line[self._at] += heap - self._last_heap
            for number, thing in enumerate(self._containers):
                length = length_of(thing)
                if length != self._lengths[number]:
                    self.grown[id(thing)][self._at] += length - self._lengths[number]
                    self._lengths[number] = length
        self._at = following
        self._events += 1
        self._last_heap = self._heap()
        if self._events > _MOST_EVENTS or time.perf_counter() > self._until:
            self.stop()


@dataclass
class Wanted:
    """Of what the births are asked for: ``containers`` that grow; ``kinds`` of which there are more (addresses of types);
    ``names`` whose value is replaced by a larger one; further ``tables``, of which nobody knows yet which one grows.
    """

    containers: list[Any]
    kinds: set[int]
    names: set[str]
    tables: dict[int, Any]


class BirthWindow:
    """Notes where objects are made, between ``start`` and ``stop``; what ``before`` saw is older. ``wanted`` is emptied.

    The answers are bytes by line (``BirthLines``): ``of_container`` by address, ``of_kind`` by type, ``of_name``.
    """

    def __init__(self, wanted: Wanted, before: Look, probes: Probes, shared: set[int]) -> None:
        self._wanted = wanted
        self._probes, self._shared = probes, shared
        self._lengths: dict[int, int] = {}
        self._before: Look | None = before
        self._until = 0.0
        self.started = 0.0
        self.open = False
        self.of_container: dict[int, Counter[str]] = {}
        self.of_kind: dict[str, Counter[str]] = {}
        self.of_name: dict[str, Counter[str]] = {}

    def start(self) -> bool:
        """Begin; False where ``tracemalloc`` is in use already."""
        if tracemalloc.is_tracing():
            return False
        self._lengths = {address: len(table) for address, table in self._wanted.tables.items()}
        self._probes.note_births(True)
        tracemalloc.start(_FRAMES)
        self.started = time.perf_counter()
        self.open = True
        return True

    def stop(self) -> None:
        """Ask the new objects and end."""
        try:
            if self.open and self._before is not None:
                self._ask(self._before)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End without asking."""
        if self.open:
            self.open = False
            self._probes.note_births(False)
            tracemalloc.stop()
        self._wanted = Wanted([], set(), set(), {})
        self._before = None

    def _ask(self, before: Look) -> None:
        wanted = self._wanted
        self._until = time.thread_time() + _SECONDS
        grown = [table for address, table in wanted.tables.items() if len(table) > self._lengths.get(address, 0)]
        for container in [*wanted.containers, *grown[:_MOST_CONTAINERS]]:
            self._charge(newest(container, _SAMPLED), before, self.of_container.setdefault(id(container), Counter()))
        for name, value in named_values(wanted.names):
            self._charge(newest(value, _SAMPLED) or [value], before, self.of_name.setdefault(name, Counter()))
        if wanted.kinds:
            self._ask_kinds(before)

    def _ask_kinds(self, before: Look) -> None:
        seen = survey()
        wanted = np.isin(seen.kind, np.fromiter(self._wanted.kinds, np.int64, len(self._wanted.kinds)))
        chosen = np.flatnonzero(wanted & ~before.has(seen.address))
        things: dict[int, list[Any]] = {}
        for index in chosen[::-1].tolist():
            if time.thread_time() > self._until:
                break
            thing, found = seen.objects[index], things.setdefault(int(seen.kind[index]), [])
            if len(found) < _SAMPLED // 3 and born_at(thing):
                found.append(thing)
        for found in sorted(filter(None, things.values()), key=lambda found: -len(found)):
            self._charge(found[::-1], before, self.of_kind.setdefault(type(found[0]).__qualname__, Counter()))

    def _charge(self, things: list[Any], before: Look, lines: Counter[str]) -> None:
        births = BirthLines(self._probes, self._shared, before.address, self._until)
        for thing in things:
            births.charge(thing, lines)
