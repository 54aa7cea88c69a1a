"""Twins of the policies that order pages by their last use: LRU, MRU, 2Q, ARC.

* **LRU**: the page unused for longest leaves. A stack algorithm (Mattson, Gecsei, Slutz, Traiger, 1970): a larger memory
  holds what a smaller one holds, so its misses never grow with the capacity.
* **MRU**: the page used last leaves: the baseline for cycles, on which LRU hits never.
* **2Q**: Johnson and Shasha, VLDB 1994, "2Q, full version": A1in is a FIFO of a quarter of the capacity, A1out remembers half
  the capacity of pages that left it, Am is an LRU list of the pages asked for again while remembered. The paper leaves
  open whether a page that returns counts in A1out while room is made for it: here not.
* **ARC**: Megiddo and Modha, FAST 2003, figure 4, with the target as a real number as printed (many programs round it).

Cost: O(1) an access.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from memfit.paging.policy import Memory

_List = OrderedDict[int, None]


def lru(trace: list[int], capacity: int) -> Iterator[Memory]:
    """Least recently used."""
    pages: _List = OrderedDict()
    evictions = 0
    for page in trace:
        hit = page in pages
        if hit:
            pages.move_to_end(page)
        else:
            if len(pages) == capacity:
                pages.popitem(last=False)
                evictions += 1
            pages[page] = None
        yield Memory(hit, len(pages), evictions)


def mru(trace: list[int], capacity: int) -> Iterator[Memory]:
    """Most recently used."""
    pages: _List = OrderedDict()
    evictions = 0
    for page in trace:
        hit = page in pages
        if hit:
            pages.move_to_end(page)
        else:
            if len(pages) == capacity:
                pages.popitem(last=True)
                evictions += 1
            pages[page] = None
        yield Memory(hit, len(pages), evictions)


def two_queues(trace: list[int], capacity: int) -> Iterator[Memory]:
    """A1in, A1out, Am."""
    waiting: _List = OrderedDict()
    gone: _List = OrderedDict()
    kept: _List = OrderedDict()
    evictions = 0
    for page in trace:
        hit = page in waiting or page in kept
        if page in kept:
            kept.move_to_end(page)
        elif not hit:
            known = page in gone
            gone.pop(page, None)
            if len(waiting) + len(kept) == capacity:
                evictions += 1
                if len(waiting) > capacity // 4:
                    gone[waiting.popitem(last=False)[0]] = None
                    while len(gone) > capacity // 2:
                        gone.popitem(last=False)
                else:
                    kept.popitem(last=False)
            (kept if known else waiting)[page] = None
        yield Memory(hit, len(waiting) + len(kept), evictions)


class _Arc:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.t1: _List = OrderedDict()
        self.t2: _List = OrderedDict()
        self.b1: _List = OrderedDict()
        self.b2: _List = OrderedDict()
        self.target = 0.0
        self.evictions = 0

    def replace(self, in_b2: bool = False) -> None:
        self.evictions += 1
        if self.t1 and (len(self.t1) > self.target or (in_b2 and len(self.t1) == self.target)):
            self.b1[self.t1.popitem(last=False)[0]] = None
        else:
            self.b2[self.t2.popitem(last=False)[0]] = None

    def load(self, page: int) -> None:
        if page in self.b1:
            self.target = min(self.target + max(1.0, len(self.b2) / len(self.b1)), float(self.capacity))
            self.replace()
            del self.b1[page]
            self.t2[page] = None
        elif page in self.b2:
            self.target = max(self.target - max(1.0, len(self.b1) / len(self.b2)), 0.0)
            self.replace(in_b2=True)
            del self.b2[page]
            self.t2[page] = None
        else:
            self._make_room()
            self.t1[page] = None

    def _make_room(self) -> None:
        first = len(self.t1) + len(self.b1)
        both = first + len(self.t2) + len(self.b2)
        if first == self.capacity:
            if len(self.t1) < self.capacity:
                self.b1.popitem(last=False)
                self.replace()
            else:
                self.t1.popitem(last=False)
                self.evictions += 1
        elif both >= self.capacity:
            if both == 2 * self.capacity:
                self.b2.popitem(last=False)
            self.replace()


def arc(trace: list[int], capacity: int) -> Iterator[Memory]:
    """T1, T2, B1, B2."""
    state = _Arc(capacity)
    for page in trace:
        hit = page in state.t1 or page in state.t2
        if hit:
            state.t1.pop(page, None)
            state.t2.pop(page, None)
            state.t2[page] = None
        else:
            state.load(page)
        yield Memory(hit, len(state.t1) + len(state.t2), state.evictions)
