"""What every replacement policy answers: the contract of a simulation.

A memory of ``capacity`` pages serves accesses in order. An access to a page inside is a *hit*; any other is a *miss*,
loads the page, and where the memory is full first makes room by an *eviction*. No page is loaded before it is asked
for, and every page asked for is loaded. A policy is the choice of what leaves, and exists twice: compiled, over flat
arrays, and as a slow Python twin over dictionaries; both hit at the same accesses, one by one.

Misses of any policy: at least those of OPT, at least one for each page, at most one for each access.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.paging.accesses import Accesses

MOST_PAGES = 2**30
"""A larger capacity is cut to this: no trace that memfit simulates has as many pages in memory."""
Hits = npt.NDArray[np.bool_]
Kernel = Callable[[Any, int, int, bool], tuple[int, int, Any]]


@dataclass
class Memory:
    """What a twin reports after each access: whether it hit, how many pages are inside, how many have left."""

    hit: bool = False
    inside: int = 0
    evictions: int = 0


Twin = Callable[[list[int], int], Iterator[Memory]]


@dataclass(frozen=True)
class Outcome:
    """What one policy did at one capacity. ``hit``: for each access, where asked for."""

    policy: str
    capacity: int
    accesses: int
    misses: int
    evictions: int
    hit: Hits | None = None

    @property
    def hits(self) -> int:
        """Accesses that found their page."""
        return self.accesses - self.misses

    @property
    def hit_rate(self) -> float:
        """Hits per access; 0.0 for an empty trace."""
        return self.hits / self.accesses if self.accesses else 0.0


@dataclass(frozen=True)
class ReplacementPolicy:
    """``name``: as people write it. ``title``: as a chart shows it. ``online``: it does not know the future."""

    name: str
    title: str
    kernel: Kernel
    twin: Twin
    online: bool = True

    def misses(self, trace: Accesses, capacity: int, twin: bool = False, *, flags: bool = False) -> Outcome:
        """Serve ``trace`` with ``capacity`` pages.

        ``twin``: by the Python twin instead of the compiled kernel (the same answer, slower). ``flags``: also whether
        each access hit.

        Raises:
            ValueError: the capacity is below one page.
        Cost: O(accesses); FIFO, CLOCK and LRU 4-10 ns an access where the pages' columns fit the cache, OPT 10-20 ns.
        """
        if capacity < 1:
            raise ValueError(f"a memory of {capacity} pages cannot serve an access; the smallest capacity is 1 page")
        if twin:
            return self._by_twin(trace, capacity, flags)
        misses, evictions, hit = self.kernel(trace.page, trace.pages, min(capacity, MOST_PAGES), flags)
        return Outcome(self.name, capacity, len(trace), misses, evictions, hit.astype(bool) if flags else None)

    def _by_twin(self, trace: Accesses, capacity: int, flags: bool) -> Outcome:
        hit = np.zeros(len(trace), bool)
        evictions = 0
        for t, memory in enumerate(self.twin(trace.page.tolist(), capacity)):
            hit[t], evictions = memory.hit, memory.evictions
        misses = len(trace) - int(hit.sum())
        return Outcome(self.name, capacity, len(trace), misses, evictions, hit if flags else None)
