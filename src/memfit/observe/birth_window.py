"""Watch a few steps closely: which line makes the objects that pile up, and which line puts them where they stay.

Two windows, each a few steps long, opened only once something is known to grow. In the first, lines of the user's own
files are traced in the thread that steps, and after each line the lengths of the growing containers and malloc's bytes in
use are compared with before: what changed is that line's. In the second, ``tracemalloc`` notes where every object is
made; at its end the new objects are asked. Cost: the first about 0.5 us a traced line and container, the second 1.5 to 3
times the step's time; both end early after ``LONGEST`` seconds.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import numpy as np

from memfit.machine.own_code import is_users_file, place
from memfit.observe.compiled_containers import length_of
from memfit.observe.held_bytes import newest
from memfit.observe.leak_census import Look
from memfit.observe.line_owners import owner_in_line
from memfit.runtime.living import survey

LONGEST = 6.0
_FRAMES = 12
_MOST_EVENTS = 60_000
_MOST_CONTAINERS = 24
_SAMPLED = 30
_WATCHING = os.path.dirname(__file__) + os.sep


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


class BirthWindow:
    """Notes where objects are made, between ``start`` and ``stop``; what ``before`` saw is older.

    ``tables``: further containers, of which nobody knows yet which one grows; emptied at the end.
    """

    def __init__(self, containers: Sequence[Any], kinds: set[int], before: Look, tables: dict[int, Any]) -> None:
        self._containers = list(containers)
        self._tables = tables
        self._lengths: dict[int, int] = {}
        self._kinds = kinds
        self._before: Look | None = before
        self.started = 0.0
        self.open = False
        self.of_container: dict[int, Counter[str]] = {}
        self.of_kind: dict[str, Counter[str]] = {}

    def start(self) -> bool:
        """Begin; False where ``tracemalloc`` is in use already."""
        if tracemalloc.is_tracing():
            return False
        self._lengths = {address: len(table) for address, table in self._tables.items()}
        tracemalloc.start(_FRAMES)
        self.started = time.perf_counter()
        self.open = True
        return True

    def stop(self) -> None:
        """Ask the new objects and end."""
        if not self.open:
            self._tables.clear()
            return
        self.open = False
        grown = [table for address, table in self._tables.items() if len(table) > self._lengths.get(address, 0)]
        for container in [*self._containers, *grown[:_MOST_CONTAINERS]]:
            lines = self.of_container.setdefault(id(container), Counter())
            for element in newest(container, _SAMPLED):
                lines.update(filter(None, (_birth(part) for part in _parts(element))))
        if self._kinds and self._before is not None:
            self._ask_kinds(self._before)
        tracemalloc.stop()
        self._tables.clear()
        self._containers = []
        self._before = None

    def _ask_kinds(self, before: Look) -> None:
        seen = survey()
        wanted = np.isin(seen.kind, np.fromiter(self._kinds, np.int64, len(self._kinds)))
        chosen = np.flatnonzero(wanted & ~before.has(seen.address))
        asked: Counter[int] = Counter()
        for index in chosen[::-1].tolist():
            thing = seen.objects[index]
            if asked[int(seen.kind[index])] < _SAMPLED:
                line = _birth(thing)
                if line:
                    asked[int(seen.kind[index])] += 1
                    self.of_kind.setdefault(type(thing).__qualname__, Counter())[line] += 1


def _parts(element: Any) -> list[Any]:
    """An element, or what a small record holds: the part that weighs is seldom the record itself."""
    if isinstance(element, (tuple, list)) and 0 < len(element) <= 8:
        return list(element)
    if isinstance(element, dict) and 0 < len(element) <= 8:
        return list(element.values())
    return [element]


def _birth(thing: Any) -> str:
    """``file:line`` of the user's innermost frame, else of the innermost, where the object was made; empty for what the
    watching made, which runs below the user's lines.
    """
    if isinstance(thing, (int, bool, type(None))):
        return ""
    frames = _traced(thing)
    for path, line in frames:
        if path.startswith(_WATCHING):
            return ""
        if is_users_file(path):
            return place(path, line)
    return place(*frames[0]) if frames else ""


def _traced(thing: Any) -> list[tuple[str, int]]:
    """Frames, innermost first. CPython 3.11 does not find objects whose attributes lie before them: asked by address."""
    trace = tracemalloc.get_object_traceback(thing)
    if trace is not None:
        return [(frame.filename, frame.lineno) for frame in reversed(trace)]
    if sys.version_info >= (3, 12):
        return []
    for before in (32, 16):
        try:
            found = ctypes.pythonapi._PyTraceMalloc_GetTraceback
        except AttributeError:
            return []
        found.restype, found.argtypes = ctypes.py_object, [ctypes.c_uint, ctypes.c_size_t]
        raw = found(0, id(thing) - before)
        if raw:
            frames = raw[0] if raw and isinstance(raw[0], tuple) and raw[0] and isinstance(raw[0][0], tuple) else raw
            return [(str(frame[0]), int(frame[1])) for frame in frames]
    return []
