"""Timeline: live bytes after each event of a Trace, by category, and what is alive at the peak.

Projected and measured runs share this type, so comparing them is one function.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from memfit.ir.trace import Category, Trace, TraceOp

CATEGORIES = tuple(Category)


@dataclass(frozen=True)
class Timeline:
    """Live bytes of a Trace. ``live[e]``: bytes after event ``e``; the peak is taken over all events of all steps."""

    trace: Trace
    live: npt.NDArray[np.int64]

    @cached_property
    def peak_event(self) -> int:
        """Index of the first event at which ``live`` is largest; -1 for an empty trace."""
        return int(np.argmax(self.live)) if len(self.live) else -1

    @property
    def peak(self) -> int:
        """Peak live bytes."""
        return int(self.live[self.peak_event]) if len(self.live) else 0

    @property
    def peak_op(self) -> TraceOp | None:
        """The op that ran at the peak."""
        return self.trace.ops[int(self.trace.op[self.peak_event])] if len(self.live) else None

    @cached_property
    def by_category(self) -> npt.NDArray[np.int64]:
        """Live bytes after each event, shape (categories, events), rows in ``Category`` order. Cost: O(both)."""
        category = np.array([CATEGORIES.index(s.category) for s in self.trace.storages], dtype=np.int64)
        table = np.zeros((len(CATEGORIES), len(self.trace)), dtype=np.int64)
        if len(self.trace):
            table[category[self.trace.storage], np.arange(len(self.trace))] = self.trace.delta
        return np.cumsum(table, axis=1)

    @property
    def categories(self) -> dict[str, int]:
        """Bytes of each category at the live peak."""
        if not len(self.live):
            return {category.value: 0 for category in CATEGORIES}
        return {c.value: int(v) for c, v in zip(CATEGORIES, self.by_category[:, self.peak_event], strict=True)}

    def alive(self, event: int | None = None) -> list[int]:
        """Storages alive after ``event`` (default: the peak), largest first. Cost: O(events)."""
        event = self.peak_event if event is None else event
        bytes_of: dict[int, int] = {}
        for storage, delta in zip(self.trace.storage[: event + 1], self.trace.delta[: event + 1], strict=True):
            total = bytes_of.get(int(storage), 0) + int(delta)
            if total:
                bytes_of[int(storage)] = total
            else:
                bytes_of.pop(int(storage), None)
        return sorted(bytes_of, key=lambda s: (-bytes_of[s], s))


def timeline(trace: Trace) -> Timeline:
    """The Timeline of a Trace. Cost: O(events)."""
    return Timeline(trace, np.cumsum(trace.delta))
