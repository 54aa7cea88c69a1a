"""The objects that Python's collector tracks, three columns about them (who, of which type, how long), a frame's variables.

All run without a switch of threads, so that what they see is one moment, and no object is referred to while another
thread is at work on it. Cost: about 60 ns an object, nearly all of it the collector's own list of them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit import _core

try:
    from memfit._frames import variables as _variables
except ImportError:  # Python 3.13 and later need none: f_locals looks at the frame itself
    _variables = None  # type: ignore[assignment]

Longs = npt.NDArray[np.int64]


def living() -> list[Any]:
    """All objects that the collector tracks, but tuples: one that is just being filled must have no second reference."""
    return _core.living()


def columns(objects: list[Any]) -> tuple[Longs, Longs, Longs]:
    """Addresses, types (as addresses) and lengths of objects; -1 for what is no list, dict, set or deque."""
    address, kind, length = _core.census(objects, deque)
    return address, kind, length


def columns_slowly(objects: list[Any]) -> tuple[Longs, Longs, Longs]:
    """The twin of ``columns``."""

    def length(thing: Any) -> int:
        if isinstance(thing, (list, dict, set, frozenset)):
            kind: Any = next(kind for kind in (list, dict, set, frozenset) if isinstance(thing, kind))
            return int(kind.__len__(thing))  # not the length that a class derived from it may claim
        return len(thing) if type(thing) is deque else -1

    count = len(objects)
    return (
        np.fromiter(map(id, objects), np.int64, count),
        np.fromiter((id(type(thing)) for thing in objects), np.int64, count),
        np.fromiter(map(length, objects), np.int64, count),
    )


@dataclass(frozen=True)
class Survey:
    """What is living, in one moment. ``objects`` and three columns beside them (see ``columns``); of each type that occurs
    its address (``kinds``), how many objects (``numbers``) and the index of one of them (``first``).
    """

    objects: list[Any]
    address: Longs
    kind: Longs
    length: Longs
    kinds: Longs
    numbers: Longs
    first: Longs

    def of_type(self, kind: type) -> list[Any]:
        """The objects of exactly one type."""
        return [self.objects[index] for index in np.flatnonzero(self.kind == id(kind)).tolist()]

    def of_kind(self, base: type) -> list[Any]:
        """The objects of a type and of those derived from it."""
        kinds = zip(self.kinds.tolist(), self.first.tolist(), strict=True)
        wanted = [kind for kind, at in kinds if issubclass(type(self.objects[at]), base)]
        return [self.objects[index] for index in np.flatnonzero(np.isin(self.kind, wanted)).tolist()]


def survey() -> Survey:
    """``living``, its ``columns`` and the types among them, in one pass."""
    return Survey(*_core.survey(deque))


def survey_slowly() -> Survey:
    """The twin of ``survey``."""
    objects = living()
    address, kind, length = columns_slowly(objects)
    kinds, first, numbers = np.unique(kind, return_index=True, return_counts=True)
    return Survey(objects, address, kind, length, kinds, numbers, first)


_FUNCTION = 0x1


def frame_variables(frame: FrameType) -> dict[str, Any]:
    """The variables of a frame and their values now; nothing stays beside the frame, which another thread may be running."""
    if _variables is None or not frame.f_code.co_flags & _FUNCTION:  # a module's or a class's own table is the real one
        return dict(frame.f_locals)
    return _variables(frame)


def frame_variables_slowly(frame: FrameType) -> dict[str, Any]:
    """The twin of ``frame_variables``, which leaves a copy beside the frame."""
    return dict(frame.f_locals)
