"""The objects that Python's collector tracks, and three columns about them: who, of which type, how long.

Both run without a switch of threads, so that what they see is one moment, and no object is referred to while another
thread is at work on it. Cost: about 20 ns an object.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit import _core

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
