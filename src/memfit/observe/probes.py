"""What the hunt asks of a framework: edges, sizes and facts of objects that only the framework understands."""

from __future__ import annotations

import atexit
import contextvars
import io
import mmap
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from memfit.ir.leak import Register, Stuck
from memfit.ir.leak_probe import Probe
from memfit.observe.compiled_containers import stream_length
from memfit.observe.leak_census import Longs

_MOST_ITEMS = 100_000


class ArrayProbe(Probe):
    """NumPy's arrays, which the collector cannot look into: a view keeps its whole base alive, an array of objects these."""

    def edges(self, thing: Any) -> Iterable[tuple[str, Any]] | None:
        """The base of a view; the items of an array of objects, the last ``_MOST_ITEMS`` of them."""
        if not issubclass(type(thing), np.ndarray):
            return None
        if thing.base is not None:
            return [(".base", thing.base)]
        if thing.dtype != object:
            return None
        items = thing.ravel(order="K")[-_MOST_ITEMS:].tolist()
        return [(f"[{number}]", item) for number, item in enumerate(items, thing.size - len(items)) if item is not None]

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


class PythonProbe(Probe):
    """What Python itself keeps in C: mapped memory, and the functions that it calls at exit."""

    def edges(self, thing: Any) -> Iterable[tuple[str, Any]] | None:
        """What a view of memory looks at."""
        if type(thing) is memoryview:
            try:
                return [(".obj", thing.obj)]
            except ValueError:  # released
                return None
        return None

    def own_bytes(self, thing: Any, seen: set[int]) -> int | None:
        """The length of a mapping, of a text in a stream."""
        if issubclass(type(thing), io.StringIO):
            return max(0, stream_length(thing))
        if not issubclass(type(thing), mmap.mmap):
            return None
        try:
            return mmap.mmap.__len__(thing)
        except ValueError:  # closed
            return 0

    def facts(self, thing: Any) -> Iterable[str]:
        """``mapped``: memory that malloc does not know of."""
        return ("mapped",) if issubclass(type(thing), mmap.mmap) else ()

    def orphan(self, thing: Any) -> Stuck | None:
        """A context: the thread that runs in it holds it, and it holds each variable that was ever set in it."""
        if type(thing) is not contextvars.Context:
            return None
        return Stuck(
            "container", "variables that were set in a context, with their values",
            "the context of a thread or task (contextvars.copy_context())",
            "a context keeps every ContextVar that was ever set in it: make each ContextVar once, at the top of a module, and "
            "set it back (variable.reset(token)) when the step is done, or run the step in a copy (copy_context().run(…))",
            thing, 1,
        )  # fmt: skip

    def worker(self, pid: int) -> str:
        """A process that ``multiprocessing`` started."""
        for process in list(getattr(sys.modules.get("multiprocessing.process"), "_children", ())):
            if getattr(getattr(process, "_popen", None), "pid", None) == pid:
                return str(getattr(process, "_name", ""))
        return ""

    def registers(self) -> Iterable[Register]:
        """The functions to be called at exit."""
        count = getattr(atexit, "_ncallbacks", None)
        if count is not None:
            yield Register(
                "atexit (functions that wait for the end of the program)", "handler", count(),
                "what is registered with atexit is kept until the program ends: register one function once, call "
                "atexit.unregister(function) when an object is closed, or use weakref.finalize(object, …)",
            )  # fmt: skip


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

    def note_births(self, on: bool) -> None:
        """Tell all."""
        for probe in self._probes:
            probe.note_births(on)

    def birth(self, thing: Any) -> Sequence[tuple[str, int]] | None:
        """The first answer."""
        for probe in self._probes:
            found = probe.birth(thing)
            if found is not None:
                return found
        return None

    def shared(self, living: Callable[[type], list[Any]]) -> set[int]:
        """All answers."""
        found: set[int] = set()
        for probe in self._probes:
            found |= probe.shared(living)
        return found

    def stuck(self, old: Longs) -> list[Stuck]:
        """All answers."""
        return [found for probe in self._probes for found in probe.stuck(old)]

    def orphan(self, thing: Any) -> Stuck | None:
        """The first answer."""
        return next(filter(None, (probe.orphan(thing) for probe in self._probes)), None)

    def registers(self) -> list[Register]:
        """All answers."""
        return [found for probe in self._probes for found in probe.registers()]

    def recording(self) -> Stuck | None:
        """The first answer."""
        return next(filter(None, (probe.recording() for probe in self._probes)), None)

    def compiled(self) -> dict[str, int]:
        """All answers."""
        return {name: number for probe in self._probes for name, number in probe.compiled().items()}

    def worker(self, pid: int) -> str:
        """The first answer."""
        return next(filter(None, (probe.worker(pid) for probe in self._probes)), "")

    def worker_data(self) -> str:
        """The first answer."""
        return next(filter(None, (probe.worker_data() for probe in self._probes)), "")

    def clear_caches(self) -> str:
        """All answers."""
        return ", ".join(filter(None, (probe.clear_caches() for probe in self._probes)))
