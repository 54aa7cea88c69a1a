"""What the hunt asks of a framework: edges, sizes and facts of objects that only the framework understands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from memfit.ir.leak import Stuck
from memfit.observe.leak_census import Longs


class Probe(Protocol):
    """Answers for objects of one framework, None for all others. No call may change or keep an object."""

    def edges(self, thing: Any) -> Iterable[tuple[str, Any]] | None:
        """References that the collector cannot see, as (label, object)."""

    def own_bytes(self, thing: Any, seen: set[int]) -> int | None:
        """Bytes behind an object that ``sys.getsizeof`` does not count; shared memory once, noted in ``seen``."""

    def size(self, thing: Any) -> int | None:
        """A size that grows when the object is replaced by a larger one, in bytes."""

    def facts(self, thing: Any) -> Iterable[str]:
        """Words of ``leak_kinds`` that hold for the object: ``graph``, ``view``, ``context``."""

    def shared(self) -> set[int]:
        """Keys of memory that lives now, so that what is built upon it later is not charged with it."""

    def stuck(self, old: Longs) -> Iterable[Stuck]:
        """What piles up since the objects at the addresses ``old``, where no reference that Python sees leads."""

    def compiled(self) -> dict[str, int]:
        """How often each function was compiled or traced so far, by ``name (file:line)``."""

    def worker_data(self) -> str:
        """What worker processes of the framework read or keep, by name; empty where there are none."""

    def clear_caches(self) -> str:
        """Empty the caches that the framework keeps by design and fills again; their names, empty where none."""


class ArrayProbe:
    """NumPy's arrays: a view keeps its whole base alive."""

    def edges(self, thing: Any) -> Iterable[tuple[str, Any]] | None:
        """The base of a view."""
        if issubclass(type(thing), np.ndarray) and thing.base is not None:
            return [(".base", thing.base)]
        return None

    def own_bytes(self, thing: Any, seen: set[int]) -> int | None:
        """Nothing beyond ``sys.getsizeof``, which counts the data of an array that owns it."""
        return 0 if issubclass(type(thing), np.ndarray) else None

    def size(self, thing: Any) -> int | None:
        """Bytes of the data."""
        return int(thing.nbytes) if issubclass(type(thing), np.ndarray) else None

    def facts(self, thing: Any) -> Iterable[str]:
        """``view`` where the base is at least four times as large."""
        if (
            issubclass(type(thing), np.ndarray)
            and isinstance(thing.base, np.ndarray)
            and thing.base.nbytes >= 4 * thing.nbytes
        ):
            return ("view",)
        return ()

    def shared(self) -> set[int]:
        """Nothing: arrays are objects, and known as such."""
        return set()

    def stuck(self, old: Longs) -> Iterable[Stuck]:
        """Nothing."""
        return ()

    def compiled(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def worker_data(self) -> str:
        """Nothing."""
        return ""

    def clear_caches(self) -> str:
        """Nothing."""
        return ""


class Probes:
    """Several probes as one."""

    def __init__(self, probes: Iterable[Probe]) -> None:
        self._probes = tuple(probes)

    def edges(self, thing: Any) -> Iterable[tuple[str, Any]] | None:
        """The first answer."""
        for probe in self._probes:
            found = probe.edges(thing)
            if found is not None:
                return found
        return None

    def own_bytes(self, thing: Any, seen: set[int]) -> int:
        """The first answer, else 0."""
        for probe in self._probes:
            found = probe.own_bytes(thing, seen)
            if found is not None:
                return found
        return 0

    def size(self, thing: Any) -> int | None:
        """The first answer."""
        for probe in self._probes:
            found = probe.size(thing)
            if found is not None:
                return found
        return None

    def facts(self, thing: Any) -> tuple[str, ...]:
        """All answers."""
        return tuple(word for probe in self._probes for word in probe.facts(thing))

    def shared(self) -> set[int]:
        """All answers."""
        found: set[int] = set()
        for probe in self._probes:
            found |= probe.shared()
        return found

    def stuck(self, old: Longs) -> list[Stuck]:
        """All answers."""
        return [found for probe in self._probes for found in probe.stuck(old)]

    def compiled(self) -> dict[str, int]:
        """All answers."""
        return {name: number for probe in self._probes for name, number in probe.compiled().items()}

    def worker_data(self) -> str:
        """The first answer."""
        return next(filter(None, (probe.worker_data() for probe in self._probes)), "")

    def clear_caches(self) -> str:
        """All answers."""
        return ", ".join(filter(None, (probe.clear_caches() for probe in self._probes)))
