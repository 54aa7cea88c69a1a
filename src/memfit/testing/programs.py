"""Made-up programs for tests of allocator policies: random Requests that a real program could have made.

Sizes come in groups, as in real traces: a few favourite sizes that come again and again, small ones, sizes around the
borders where allocators change their rules, and large ones. Frees come in any order, some with FREE_REQUESTED first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from memfit.ir.requests import Action, Requests

KIB, MIB = 1 << 10, 1 << 20
Event = tuple[int, int, int]


def requests_of_rows(rows: Sequence[Event]) -> Requests:
    """Requests from (action, block, nbytes) rows: one stream, the default pool."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    count = len(table)
    return Requests(
        table[:, 0].astype(np.uint8), np.ascontiguousarray(table[:, 1]), np.ascontiguousarray(table[:, 2]),
        np.zeros(count, np.int32), np.zeros(count, np.int32), np.full(count, -1, np.int64),
    )  # fmt: skip


def random_requests(seed: int, events: int, alive: int = 60) -> Requests:
    """A long program: about ``alive`` blocks at once, phases of growing and shrinking. Cost: O(events)."""
    source = random.Random(seed)
    favourites = [source.choice((512, 4 * KIB, MIB, 3 * MIB)) * source.randint(1, 40) for _ in range(12)]
    rows: list[Event] = []
    held: list[int] = []
    waiting: list[int] = []
    count = 0
    while len(rows) < events:
        grows = len(held) < alive * (0.5 + 0.5 * ((len(rows) // 400) % 2))
        if not held or source.random() < (0.65 if grows else 0.35):
            kind = source.random()
            size = source.choice(favourites) if kind < 0.6 else source.randint(1, 1 << source.randint(4, 27))
            rows.append((Action.ALLOCATE, count, size))
            held.append(count)
            count += 1
        else:
            block = held.pop() if source.random() < 0.5 else held.pop(source.randrange(len(held)))
            if source.random() < 0.1:
                rows.append((Action.FREE_REQUESTED, block, 0))
                waiting.append(block)
            else:
                rows.append((Action.FREE, block, 0))
        if waiting and source.random() < 0.3:
            rows.append((Action.FREE, waiting.pop(0), 0))
        if source.random() < 0.003:
            rows.append((Action.EMPTY_CACHE, 0, 0))
    return requests_of_rows(rows)


@st.composite
def programs(draw: st.DrawFn, longest: int = 60) -> Requests:
    """Short programs, for shrinking to the smallest that goes wrong."""
    sizes = st.one_of(
        st.integers(1, 4 * KIB), st.integers(MIB - 600, MIB + 600), st.integers(9 * MIB, 11 * MIB),
        st.integers(1, 300 * MIB), st.sampled_from((512, 1024, 2 * MIB, 20 * MIB)),
    )  # fmt: skip
    rows: list[Event] = []
    held: list[int] = []
    waiting: list[int] = []
    count = 0
    for kind, size, which in draw(
        st.lists(st.tuples(st.integers(0, 20), sizes, st.integers(0, 1 << 16)), max_size=longest)
    ):
        if kind == 0:
            rows.append((Action.EMPTY_CACHE, 0, 0))
        elif kind == 1 and waiting:
            rows.append((Action.FREE, waiting.pop(which % len(waiting)), 0))
        elif kind == 2 and held:
            waiting.append(held.pop(which % len(held)))
            rows.append((Action.FREE_REQUESTED, waiting[-1], 0))
        elif kind < 10 and held:
            rows.append((Action.FREE, held.pop(which % len(held)), 0))
        else:
            rows.append((Action.ALLOCATE, count, size))
            held.append(count)
            count += 1
    return requests_of_rows(rows)
