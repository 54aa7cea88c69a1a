"""Twins of the policies that keep queues which a hit does not reorder: FIFO, CLOCK, SIEVE, S3-FIFO.

* **FIFO**: the page that came in first leaves.
* **CLOCK**: Corbato, A Paging Experiment with the Multics System, 1968: FIFO, but a page used since the hand last passed
  is spared once. Versions differ in whether a page comes in marked as used (Multics, where loading is a use) or not (the
  later "second chance", and libCacheSim): here not, so a page used once leaves before one used twice.
* **SIEVE**: Zhang, Yang, Yue, Vigfusson, Rashmi, NSDI 2024, algorithm 1: as CLOCK, but a spared page keeps its place and
  new pages come in at the head instead of at the hand.
* **S3-FIFO**: Yang, Zhang, Qiu, Yue, Rashmi, SOSP 2023, algorithm 1: a small queue of a tenth of the capacity (at least one
  page), a main queue, a ghost queue with as many entries as the main queue has pages. From the small queue a page used
  more than once since it came in moves to the main queue, with its count cleared as the text of section 4.1 says (the
  printed algorithm leaves that line out); any other leaves and is remembered. Published versions differ: here, as printed,
  a move into a full main queue evicts from it at once, and the ghost is asked after room was made, an exact FIFO list
  from which a page that returns is taken out; libCacheSim lets the main queue grow instead and asks the ghost first.

Cost: O(1) amortised an access (a dictionary step); SIEVE O(capacity) an eviction.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from memfit.paging.policy import Memory

MOST_USES = 3


def fifo(trace: list[int], capacity: int) -> Iterator[Memory]:
    """First in, first out."""
    queue: OrderedDict[int, None] = OrderedDict()
    evictions = 0
    for page in trace:
        hit = page in queue
        if not hit:
            if len(queue) == capacity:
                queue.popitem(last=False)
                evictions += 1
            queue[page] = None
        yield Memory(hit, len(queue), evictions)


def clock(trace: list[int], capacity: int) -> Iterator[Memory]:
    """Second chance: the ring is a queue whose front is under the hand."""
    used: dict[int, bool] = {}
    ring: deque[int] = deque()
    evictions = 0
    for page in trace:
        hit = page in used
        if hit:
            used[page] = True
        else:
            if len(ring) == capacity:
                while used[ring[0]]:
                    used[ring[0]] = False
                    ring.rotate(-1)
                del used[ring.popleft()]
                evictions += 1
            ring.append(page)
            used[page] = False
        yield Memory(hit, len(ring), evictions)


def sieve(trace: list[int], capacity: int) -> Iterator[Memory]:
    """A list from oldest to newest, and the index of the hand in it."""
    visited: dict[int, bool] = {}
    queue: list[int] = []
    hand = evictions = 0
    for page in trace:
        hit = page in visited
        if hit:
            visited[page] = True
        else:
            if len(queue) == capacity:
                while visited[queue[hand]]:
                    visited[queue[hand]] = False
                    hand = (hand + 1) % len(queue)
                del visited[queue.pop(hand)]
                if hand == len(queue):  # past the newest: at the oldest again, before the new page comes in
                    hand = 0
                evictions += 1
            queue.append(page)
            visited[page] = False
        yield Memory(hit, len(queue), evictions)


class _S3Fifo:
    def __init__(self, capacity: int) -> None:
        self.small_pages = max(1, capacity // 10)
        self.main_pages = capacity - self.small_pages
        self.small: deque[int] = deque()
        self.main: deque[int] = deque()
        self.ghost: OrderedDict[int, None] = OrderedDict()
        self.uses: dict[int, int] = {}
        self.evictions = 0

    def evict(self) -> None:
        if len(self.small) >= self.small_pages:
            self.evict_small()
        else:
            self.evict_main()

    def evict_small(self) -> None:
        while self.small:
            page = self.small.popleft()
            if self.uses[page] <= 1:
                self._leave(page)
                self.ghost[page] = None
                while len(self.ghost) > self.main_pages:
                    self.ghost.popitem(last=False)
                return
            if len(self.main) >= self.main_pages:
                self.evict_main()
            self.uses[page] = 0
            self.main.append(page)

    def evict_main(self) -> None:
        while self.main:
            page = self.main.popleft()
            if self.uses[page] == 0:
                self._leave(page)
                return
            self.uses[page] -= 1
            self.main.append(page)

    def _leave(self, page: int) -> None:
        del self.uses[page]
        self.evictions += 1


def s3_fifo(trace: list[int], capacity: int) -> Iterator[Memory]:
    """Small, main and ghost queues."""
    state = _S3Fifo(capacity)
    for page in trace:
        hit = page in state.uses
        if hit:
            state.uses[page] = min(state.uses[page] + 1, MOST_USES)
        else:
            while len(state.uses) >= capacity:
                state.evict()
            if page in state.ghost:
                del state.ghost[page]
                state.main.append(page)
            else:
                state.small.append(page)
            state.uses[page] = 0
        yield Memory(hit, len(state.uses), state.evictions)
