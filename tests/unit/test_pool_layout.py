"""The pool's placement, its search for what repeats and its plans, each against something slow and plain."""

import random

import numpy as np
import pytest

from memfit import _core
from memfit.allocators.fits import Arena

STEP = 2


def allocation(granules: int) -> int:
    return granules << 2


def release(age: int) -> int:
    return age << 2 | 1


@pytest.mark.parametrize("seed", range(6))
def test_placement_is_its_twins(seed: int) -> None:
    draw = random.Random(seed)
    native, twin = _core.PoolLayout(1 << 30), Arena("first", 1, 1, None)
    alive: list[tuple[int, int]] = []
    for _ in range(1500):
        if not alive or draw.random() < 0.52:
            size = draw.choice((1, 2, 3, 8, 100, draw.randint(1, 5000)))
            start = native.take(size)
            assert (start, size) == twin.allocate(size)
            alive.append((start, size))
        else:
            start, size = alive.pop(draw.randrange(len(alive)))
            native.give(start, size)
            twin.free(start, size)


def test_exactly_this_range_or_nothing() -> None:
    layout = _core.PoolLayout(100)
    assert layout.take_at(10, 20)
    assert not layout.take_at(29, 2)
    assert not layout.take_at(5, 6)
    assert not layout.take_at(95, 6)
    assert layout.take(10) == 0
    assert layout.take(1) == 30
    layout.give(10, 20)
    assert layout.take_at(12, 3)
    assert layout.take(2) == 10
    assert layout.take(15) == 15


def events_of_step(draw: random.Random, blocks: int) -> list[tuple[int, int]]:
    """(code, change of live granules) of a step that frees all it allocates."""
    out, alive, count = [], [], 0
    while count < blocks or alive:
        if count < blocks and (not alive or draw.random() < 0.6):
            size = draw.randint(9, 400)
            alive.append((count, size))
            out.append((allocation(size), size))
            count += 1
        else:
            born, size = alive.pop(draw.randrange(len(alive)))
            out.append((release(count - born), -size))
    return out


def borders(events: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(events seen, period) wherever a border between known periods is said to be."""
    repeats, live, found = _core.PoolRepeats(), 7, []
    for count, (code, change) in enumerate(events, 1):
        live += change
        if repeats.add(code, live):
            found.append((count, repeats.period))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_period_is_found_after_three_steps(seed: int) -> None:
    draw = random.Random(seed)
    start, step = events_of_step(draw, 30), events_of_step(draw, 80)
    found = borders(start + 6 * step)
    assert found
    assert {period for _, period in found} == {len(step)}
    assert all((count - len(start)) % len(step) == 0 for count, _ in found), "the border is where nothing is alive"
    assert found[0][0] <= len(start) + 4 * len(step)
    events = [code for code, _ in start + 6 * step]
    for count, period in found:
        assert events[count - period : count] == events[count - 2 * period : count - period]


@pytest.mark.parametrize("seed", range(5))
def test_marked_steps_are_a_period_after_two(seed: int) -> None:
    step = [*events_of_step(random.Random(seed), 40), (STEP, 0)]
    assert borders([(STEP, 0), *step, *step])[0] == (1 + 2 * len(step), len(step))


def test_layers_that_keep_their_activations_are_no_period() -> None:
    layer = [(allocation(50), 50), (allocation(20), 20), (release(1), -20)] * 8
    assert borders(layer * 30) == []


def test_what_never_repeats_has_no_period() -> None:
    draw = random.Random(3)
    assert borders([event for _ in range(40) for event in events_of_step(draw, 40)]) == []


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_overlaps_nothing(seed: int) -> None:
    draw = random.Random(seed)
    step = [code for code, _ in events_of_step(draw, 60)]
    step.insert(11, release(500))  # of a block from before the period
    crossing = len(step)
    step.append(allocation(33))  # lives on
    taken = [(0, 50), (120, 200), (1000, 1001)]
    layout, starts, sizes = _core.PoolLayout(1 << 20), [], {}
    for start, end in taken:
        assert layout.take_at(start, end - start)
    for at, code in enumerate(step):
        starts.append(layout.take(code >> 2) if code & 3 == 0 else -1)
        if code & 3 == 0:
            sizes[at] = code >> 2
        elif code != release(500):
            born = sorted(sizes)[-(code >> 2)]
            layout.give(starts[born], sizes[born])
    place, until, end, packed, spans = _core.plan_period(np.array(step, np.uint64), np.array(starts, np.int64), taken)
    assert place[11] == -1
    assert place[crossing] == -1
    planned = [at for at in sizes if place[at] >= 0]
    assert len(planned) == 60
    for at in planned:
        assert step[until[at]] & 3 == 1
        assert place[until[at]] == place[at]
    ranges = [(place[at], place[at] + sizes[at], at, until[at]) for at in planned]
    for low, high, born, died in ranges:
        assert all(high <= start or low >= stop for start, stop in taken)
        assert any(start <= low and high <= stop for start, stop in spans)
        for low2, high2, born2, died2 in ranges:
            if born < born2 < died:
                assert high <= low2 or high2 <= low, (born, died, born2, died2)
    recorded = max(starts[at] + sizes[at] for at in planned)
    assert end == max(high for _, high, _, _ in ranges) <= recorded
    assert packed == (end < recorded)
