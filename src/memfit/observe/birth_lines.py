"""Which lines made what an object keeps alive, by bytes: an object is seldom heavy itself, what it holds is.

Where an object was made is told by ``tracemalloc`` while it runs, and by frameworks of what Python does not see (the nodes
of a graph). From an object that was added, what was made lately is walked, and each part is charged to the user's innermost
line; memory that several share is charged to the innermost part (a view's base, not the view). The line with most bytes is
the one to look at. Cost: about 10 us a part, at most ``_MOST_PARTS`` of an object.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
import tracemalloc
from collections import Counter, deque
from collections.abc import Collection, Sequence
from functools import lru_cache
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from memfit.machine.own_code import is_users_file, place
from memfit.observe.held_bytes import is_old
from memfit.observe.leak_census import Longs
from memfit.observe.probes import Probes

_MOST_PARTS = 400
_NOT_ENTERED = (ModuleType, CodeType, type)
_REUSED = frozenset({tuple, list, dict, MethodType})
"""Types whose memory Python uses again without asking its allocator, which therefore shows no line, or an earlier one."""
_WATCHING = os.path.dirname(__file__) + os.sep


class BirthLines:
    """Charges lines with bytes, each object once. ``shared``: keys of memory that was there before (``Probe.shared``);
    ``old``: sorted addresses of the objects that were; ``until``: seconds of this thread after which nothing is added.
    """

    def __init__(self, probes: Probes, shared: Collection[int], old: Longs, until: float = float("inf")) -> None:
        self._probes, self._old, self._until = probes, old, until
        self._memory = set(shared)
        self._seen: dict[int, Any] = {}  # kept alive, so that no address is used twice

    def charge(self, thing: Any, lines: Counter[str]) -> None:
        """Add to ``lines`` the bytes of ``thing`` and of what it keeps alive that was made while births were noted."""
        parts: list[tuple[Any, str]] = []
        queue = deque([(thing, "")])
        while queue and len(parts) < _MOST_PARTS and time.thread_time() < self._until:
            part, inherited = queue.popleft()
            if id(part) in self._seen or issubclass(type(part), _NOT_ENTERED):
                continue
            self._seen[id(part)] = part
            frames = self._probes.birth(part)
            line = (born_at(part) if frames is None else _users_line(frames)) or inherited
            if line:
                parts.append((part, line))
            elif part is not thing and (type(part) not in _REUSED or is_old(id(part), part, self._old)):
                continue
            of_node = line if frames is not None else ""
            for label, child in self._probes.edges(part) or ():
                queue.append((child, of_node if label.startswith((".saved", "._saved", ".context")) else ""))
            queue.extend((child, "") for child in _referents(part))
        for part, line in reversed(parts):
            lines[line] += _bytes(part) + self._probes.own_bytes(part, self._memory)


def _referents(part: Any) -> Sequence[Any]:
    if type(part) is FunctionType:
        return [child for child in (part.__closure__, part.__defaults__, part.__dict__) if child]
    if type(part) is FrameType:
        return [child for child in gc.get_referents(part) if child is not part.f_globals and child is not part.f_back]
    return gc.get_referents(part)


def _bytes(part: Any) -> int:
    try:
        return sys.getsizeof(part)
    except Exception:
        return 64


def born_at(thing: Any) -> str:
    """``file:line`` of the user's innermost frame, else of the innermost, where the object was made; empty for what the
    watching made, which runs below the user's lines, and for what is older than ``tracemalloc``.
    """
    if isinstance(thing, (int, bool, type(None))):
        return ""
    return _users_line(_traced(thing))


def _users_line(frames: Sequence[tuple[str, int]]) -> str:
    """The user's innermost of some frames, innermost first."""
    for path, line in frames:
        if path.startswith(_WATCHING):
            return ""
        if is_users_file(path):
            return _place(path, line)
    return _place(*frames[0]) if frames else ""


_place = lru_cache(4096)(place)


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
