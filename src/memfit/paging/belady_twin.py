"""Twin of OPT: the page whose next use is farthest away leaves. Belady, IBM Systems Journal 5(2), 1966; optimality: Mattson
et al. 1970. Here pages of one size, and every page asked for is loaded; of pages never used again any may leave: the
hits are the same. The kernel keeps instants in a bitmap with summaries (van Emde Boas' idea at word width), no heap.

Cost: O(capacity) an eviction.
"""

from __future__ import annotations

from collections.abc import Iterator

from memfit.paging.policy import Memory


def optimal(trace: list[int], capacity: int) -> Iterator[Memory]:
    """The farthest next use, by looking at all."""
    later: dict[int, int] = {}
    following = [0] * len(trace)
    for t in range(len(trace) - 1, -1, -1):
        following[t] = later.get(trace[t], len(trace))
        later[trace[t]] = t
    next_use: dict[int, int] = {}
    evictions = 0
    for t, page in enumerate(trace):
        hit = page in next_use
        if not hit and len(next_use) == capacity:
            del next_use[max(next_use, key=next_use.__getitem__)]
            evictions += 1
        next_use[page] = following[t]
        yield Memory(hit, len(next_use), evictions)
