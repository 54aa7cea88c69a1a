"""What the leak hunt asks of a framework: edges, sizes and facts of objects that only the framework understands.

``observe`` asks, ``frameworks`` answer; every answer here is "nothing", so that a framework gives those that it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.ir.leak import Register, Stuck

Longs = npt.NDArray[np.int64]


class Probe:
    """Answers for objects of one framework, nothing for all others. No call may change or keep an object."""

    def edges(self, thing: Any) -> Iterable[tuple[str, Any]] | None:
        """References that the collector cannot see, as (label, object); None for objects of others."""
        return None

    def own_bytes(self, thing: Any, seen: set[int]) -> int | None:
        """Bytes behind an object that ``sys.getsizeof`` does not count; shared memory once, noted in ``seen``."""
        return None

    def size(self, thing: Any) -> int | None:
        """A size that grows when the object is replaced by a larger one, in bytes."""
        return None

    def facts(self, thing: Any) -> Iterable[str]:
        """Words of ``leak_kinds`` that hold for the object: ``graph``, ``view``, ``context``, ``mapped``."""
        return ()

    def note_births(self, on: bool) -> None:
        """From now on, or no more, note where objects are made that Python's allocator does not make."""

    def birth(self, thing: Any) -> Sequence[tuple[str, int]] | None:
        """Frames, innermost first, that made such an object; empty where it was not noted, None for objects of others."""
        return None

    def shared(self, living: Callable[[type], list[Any]]) -> set[int]:
        """Keys of memory that lives now, so that what is built upon it later is not charged with it.

        ``living`` gives the living objects of a type and of those derived from it.
        """
        return set()

    def stuck(self, old: Longs) -> Iterable[Stuck]:
        """What piles up since the objects at the addresses ``old``, where no reference that Python sees leads."""
        return ()

    def orphan(self, thing: Any) -> Stuck | None:
        """Why an object lives that no name reaches, where the framework can tell."""
        return None

    def registers(self) -> Iterable[Register]:
        """Lists that compiled code keeps, with their entries now."""
        return ()

    def recording(self) -> Stuck | None:
        """What compiled code notes of all that happens, where somebody switched that on."""
        return None

    def compiled(self) -> dict[str, int]:
        """How often each function was compiled or traced so far, by ``name (file:line)``."""
        return {}

    def worker(self, pid: int) -> str:
        """What a child process is, by name; empty where the framework did not start it."""
        return ""

    def worker_data(self) -> str:
        """What worker processes of the framework read or keep, by name; empty where there are none."""
        return ""

    def clear_caches(self) -> str:
        """Empty the caches that the framework keeps by design and fills again; their names, empty where none."""
        return ""
