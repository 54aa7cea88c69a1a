"""A plan that a program need not keep to: whatever the program does, no two blocks of the arena overlap."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.allocators.guided import DYNAMIC, follow_plan
from memfit.ir.requests import Action, Requests
from memfit.testing.programs import programs, requests_of_rows

PLANS = st.lists(
    st.tuples(st.sampled_from((512, 1024, 4096, 2 << 20, 20 << 20)), st.sampled_from((-1, 0, 512, 1024, 1 << 20))),
    min_size=1, max_size=12,
)  # fmt: skip


def check(requests: Requests, place: np.ndarray[tuple[int], np.dtype[np.int64]], plan: list[tuple[int, int]]) -> None:
    alive: dict[int, tuple[int, int]] = {}
    rows = zip(requests.action.tolist(), requests.block.tolist(), requests.nbytes.tolist(), strict=True)
    for action, block, nbytes in rows:
        if action == Action.ALLOCATE and place[block] != DYNAMIC:
            start = int(place[block])
            assert (nbytes, start) in plan
            assert all(end <= start or start + nbytes <= begin for begin, end in alive.values())
            alive[block] = (start, start + nbytes)
        elif action == Action.FREE:
            alive.pop(block, None)


@settings(max_examples=200, deadline=None)
@given(programs(), PLANS, st.integers(1, 50))
def test_blocks_of_the_arena_never_overlap(requests: Requests, plan: list[tuple[int, int]], longest: int) -> None:
    nbytes, offset = np.array([row[0] for row in plan]), np.array([row[1] for row in plan])
    check(requests, follow_plan(requests, nbytes, offset, longest), plan)


def test_a_program_that_keeps_to_the_plan_is_served_from_it() -> None:
    rows = []
    for number in range(5):
        first = 3 * number
        rows += [(Action.ALLOCATE, first, 8), (Action.ALLOCATE, first + 1, 4), (Action.FREE, first, 0)]
        rows += [(Action.ALLOCATE, first + 2, 6), (Action.FREE, first + 1, 0), (Action.FREE, first + 2, 0)]
    place = follow_plan(requests_of_rows(rows), np.array([8, 4, 6]), np.array([0, 8, 0]), 6)
    assert place.tolist() == [0, 8, 0] * 5


def test_what_differs_is_dynamic_and_the_program_falls_in_step_again() -> None:
    sizes = [10 + number for number in range(12)]
    plan, offset = np.array(sizes), np.cumsum([0, *sizes[:-1]])
    rows, block = [], 0
    for extra in (False, True, False):
        held = []
        for size in [*sizes[:4], 999, *sizes[4:]] if extra else sizes:
            rows.append((Action.ALLOCATE, block, size))
            held.append(block)
            block += 1
        rows += [(Action.FREE, number, 0) for number in held]
    place = follow_plan(requests_of_rows(rows), plan, offset, 100)
    assert (place != DYNAMIC).sum() == 36
    assert place[12 + 4] == DYNAMIC


def test_blocks_that_stay_do_not_settle_in_the_arena() -> None:
    rows = [
        (Action.ALLOCATE, 0, 8),
        (Action.ALLOCATE, 1, 8),
        (Action.FREE, 1, 0),
        (Action.ALLOCATE, 2, 8),
        (Action.FREE, 2, 0),
    ]
    place = follow_plan(requests_of_rows(rows), np.array([8]), np.array([0]), 2)
    assert place.tolist() == [DYNAMIC, 0, 0]
