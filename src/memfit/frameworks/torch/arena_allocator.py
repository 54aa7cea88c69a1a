"""The compiled half of an arena's step: notes what operations allocate, then serves the same calls from the plan.

``Rehearsal`` notes the calls and frees of one operation at a time; ``PlannedCalls`` are the addresses that each
operation's calls are answered with. Without a compiler neither is there, and what an operation allocates inside stays
with torch's own allocator. See ``hook/arena_allocator.cc``. Cost: two calls of about 0.2 us an operation served.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any

import numpy as np

from memfit.frameworks.torch.allocator_hook import is_available
from memfit.frameworks.torch.hook_library import HookError, load

__all__ = ["Call", "PlannedCalls", "Rehearsal", "is_available"]


@dataclass(frozen=True)
class Call:
    """One allocation of an operation. ``freed``: after how many of the operation's events, or -1: it outlives it."""

    nbytes: int
    address: int
    begun: int
    freed: int


@cache
def _library() -> Any:
    library = load()
    word, place = ctypes.c_int64, ctypes.c_void_p
    for name, result, arguments in (
        ("plan", place, [word, place, place, place]), ("forget", None, [place]), ("enter", ctypes.c_int, [place]),
        ("leave", word, []), ("served", word, []), ("begin", None, [word]), ("end", word, [word]),
        ("rehearse", ctypes.c_int, []), ("note", None, [ctypes.c_int]), ("rehearsed", None, []), ("note_count", word, []),
        ("copy_notes", None, [word, place, place, place]),
    ):  # fmt: skip
        function = getattr(library, f"memfit_arena_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class Rehearsal:
    """Notes what this thread allocates, between ``begin`` and ``end``, while the block of code runs.

    Raises:
        HookError: torch takes no other allocator.
    """

    def __enter__(self) -> Rehearsal:
        if not _library().memfit_arena_rehearse():
            raise HookError("torch did not accept another CPU allocator")
        self.begin()
        _library().memfit_arena_note(0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _library().memfit_arena_rehearsed()

    def begin(self) -> None:
        """Note from here on."""
        self.first = _library().memfit_arena_note_count()
        _library().memfit_arena_note(1)

    def end(self) -> list[Call]:
        """The calls since ``begin``, in order; what is freed later counts as outliving them."""
        library = _library()
        library.memfit_arena_note(0)
        count = library.memfit_arena_note_count() - self.first
        columns = [np.empty(count, np.int64) for _ in range(3)]
        library.memfit_arena_copy_notes(self.first, *(column.ctypes.data for column in columns))
        begun: dict[int, tuple[int, int, int]] = {}
        freed: dict[int, int] = {}
        for event, (index, delta, address) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            if delta > 0:
                begun[index] = (delta, address, event)
            else:
                freed[index] = event
        return [Call(*row, freed.get(index, -1)) for index, row in begun.items()]


class PlannedCalls:
    """Where each call of each operation is answered: rows of (bytes, address), an address of 0 is not planned."""

    def __init__(self, operations: Sequence[Sequence[tuple[int, int]]]) -> None:
        library = _library()
        start = np.zeros(len(operations) + 1, np.int64)
        np.cumsum([len(rows) for rows in operations], out=start[1:])
        nbytes, address = (
            np.array([row[i] for rows in operations for row in rows], np.int64).reshape(-1) for i in (0, 1)
        )
        self._plan = library.memfit_arena_plan(
            len(operations), start.ctypes.data, nbytes.ctypes.data, address.ctypes.data
        )
        weakref.finalize(self, library.memfit_arena_forget, self._plan).atexit = False
        self.begin, self.end = library.memfit_arena_begin, library.memfit_arena_end
        self._library = library

    def enter(self) -> None:
        """A step of this thread begins."""
        if not self._library.memfit_arena_enter(self._plan):
            raise HookError("torch did not accept another CPU allocator")

    def leave(self) -> int:
        """The step ends; how many calls were answered by torch's own allocator instead."""
        return int(self._library.memfit_arena_leave())
