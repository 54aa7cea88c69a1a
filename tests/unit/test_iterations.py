"""Which events repeat, against traces made of known iterations."""

from __future__ import annotations

import random

import numpy as np
import pytest

from memfit.allocators.iterations import Iterations, blocks_within, find_iterations
from memfit.allocators.policy import live_bytes
from memfit.ir.requests import Action, Requests
from memfit.testing.programs import Event, requests_of_rows


def repeated(seed: int, repeats: int, length: int, warm_up: int, crossing: bool) -> Requests:
    """Some events of no pattern, then one iteration ``repeats`` times, then frees of what is left."""
    source = random.Random(seed)
    rows: list[Event] = []
    count = 0
    kept = []
    for _ in range(warm_up):
        rows.append((Action.ALLOCATE, count, source.randint(1, 1 << 20)))
        kept.append(count)
        count += 1
    sizes = [source.randint(1, 1 << 16) for _ in range(length)]
    order = list(range(length))
    source.shuffle(order)
    before = -1
    for _ in range(repeats):
        first = count
        for size in sizes:
            rows.append((Action.ALLOCATE, count, size))
            count += 1
        if before >= 0:
            rows.append((Action.FREE, before, 0))
        before = -1
        for index in order:
            if crossing and index == 0:
                before = first
            else:
                rows.append((Action.FREE, first + index, 0))
    rows += [(Action.FREE, block, 0) for block in kept]
    return requests_of_rows(rows)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("crossing", [False, True])
def test_iterations_are_found(seed: int, crossing: bool) -> None:
    requests = repeated(seed, 6, 20, 17, crossing)
    found = find_iterations(requests)
    assert found is not None
    assert found.period == 40
    assert found.repeats >= 4
    number = blocks_within(requests, found)
    inside = number >= 0
    sizes = requests.nbytes[requests.action == Action.ALLOCATE]
    for which in np.unique(number[inside]):
        assert len(set(sizes[number == which].tolist())) == 1
        assert int((number == which).sum()) == found.repeats
    assert not inside[:17].any()
    assert int(inside.sum()) == found.repeats * (19 if crossing else 20)
    before = np.concatenate(([0], live_bytes(requests)))
    assert before[found.start] == before[found.start : found.start + found.period].min()


def test_no_iterations_where_nothing_repeats() -> None:
    source = random.Random(3)
    rows = [(Action.ALLOCATE, number, source.randint(1, 1 << 40)) for number in range(200)]
    assert find_iterations(requests_of_rows(rows)) is None
    assert find_iterations(requests_of_rows([])) is None
    assert find_iterations(requests_of_rows([(Action.ALLOCATE, 0, 5)])) is None


def test_the_smallest_trace_that_repeats() -> None:
    rows = [(Action.ALLOCATE, 0, 5), (Action.FREE, 0, 0), (Action.ALLOCATE, 1, 5), (Action.FREE, 1, 0)]
    found = find_iterations(requests_of_rows(rows * 1))
    assert found == Iterations(0, 2, 2)
