"""Large placement: kernels against their twin, placements against a brute-force check, and what the search promises."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit import _core
from memfit.planners.large import BEST_FIT, improve, native_problem, orders, peak_of, place
from memfit.planners.large_slowly import (
    NO_CEILING,
    eject_slowly,
    fill_slowly,
    lifetimes_slowly,
    loads_slowly,
    pieces_of,
    sections_of,
)
from memfit.planners.problem import FREE_OFFSET, Instance, plain_instance


def random_instance(seed: int, count: int, *, plain: bool = False) -> Instance:
    """Buffers with gaps, byte windows, alignment and pins (or without all of them)."""
    draw = np.random.default_rng(seed)
    lower = draw.integers(0, 2 * count, count)
    upper = lower + draw.integers(1, 1 + int(draw.integers(1, count + 1)), count)
    size = draw.integers(1, 50, count)
    if plain:
        return plain_instance(lower, upper, size)
    start, pieces = [0], []
    for i in range(count):
        cuts = np.unique(draw.integers(lower[i], upper[i] + 1, 4)) if draw.random() < 0.3 else [lower[i], upper[i]]
        for begin, end in list(pairwise(cuts))[::2] or [(lower[i], upper[i])]:
            low = int(draw.integers(0, size[i])) if draw.random() < 0.3 else 0
            pieces.append((begin, end, low, int(draw.integers(low + 1, size[i] + 1)) if low else size[i]))
        start.append(len(pieces))
    columns = np.array(pieces, dtype=np.int64).T.copy()
    alignment = draw.choice([1, 1, 4, 16], count).astype(np.int64)
    fixed = np.full(count, FREE_OFFSET, dtype=np.int64)
    level = 0
    for i in draw.choice(count, count // 8, replace=False):
        fixed[i], level = level, level + int(size[i])
    return Instance(lower, upper, size, alignment, fixed, np.array(start, dtype=np.int64), *columns)


def why_wrong(instance: Instance, offset: np.ndarray) -> str:
    """Brute force over pairs of pieces; '' for a valid placement."""
    pieces = [(i, piece) for i in range(len(instance)) for piece in pieces_of(instance, i)]
    for i in range(len(instance)):
        if offset[i] < 0 or (instance.fixed[i] < 0 and offset[i] % instance.alignment[i]):
            return f"offset {offset[i]} of buffer {i}"
        if instance.fixed[i] not in (FREE_OFFSET, offset[i]):
            return f"pin of buffer {i} is not kept"
    for at, (a, p) in enumerate(pieces):
        for b, q in pieces[:at]:
            together = a != b and p[0] < q[1] and q[0] < p[1]
            if together and offset[a] + p[2] < offset[b] + q[3] and offset[b] + q[2] < offset[a] + p[3]:
                return f"buffers {a} and {b} overlap"
    return ""


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), plain=st.booleans())
def test_sections_loads_and_lifetimes_are_those_of_the_twin(seed: int, count: int, plain: bool) -> None:
    instance = random_instance(seed, count, plain=plain)
    problem = native_problem(instance)
    assert problem.sections == len(sections_of(instance))
    assert problem.load().tolist() == loads_slowly(instance)
    assert problem.lifetime().tolist() == lifetimes_slowly(instance)
    loads, sections = loads_slowly(instance), sections_of(instance)
    for buffer, largest in enumerate(problem.largest_load().tolist()):
        alive = [load for load, (begin, end) in zip(loads, sections, strict=True)
                 if any(p[0] < end and begin < p[1] for p in pieces_of(instance, buffer))]  # fmt: skip
        assert largest == max(alive)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), plain=st.booleans(), fit=st.integers(0, 1),
       tight=st.booleans())  # fmt: skip
def test_filling_is_that_of_the_twin(seed: int, count: int, plain: bool, fit: int, tight: bool) -> None:
    instance = random_instance(seed, count, plain=plain)
    problem = native_problem(instance)
    order = np.random.default_rng(seed).permutation(count).astype(np.int32)
    ceiling = problem.bound if tight else NO_CEILING
    filling = _core.Filling(problem, order, fit, ceiling)
    while not filling.run(7):
        pass
    partial, whole = fill_slowly(instance, order.tolist(), fit, ceiling)
    assert filling.offset().tolist() == partial.tolist()
    assert filling.whole().tolist() == whole.tolist()
    assert filling.out == np.count_nonzero(partial < 0)
    assert why_wrong(instance, filling.whole()) == ""


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30), plain=st.booleans(), work=st.integers(0, 4000),
       turn=st.integers(0, 2))  # fmt: skip
def test_ejection_is_that_of_the_twin(seed: int, count: int, plain: bool, work: int, turn: int) -> None:
    instance = random_instance(seed, count, plain=plain)
    problem = native_problem(instance)
    filling = _core.Filling(problem, np.arange(count, dtype=np.int32), BEST_FIT, problem.bound)
    filling.run(NO_CEILING)
    search = _core.EjectionSearch(problem, filling.offset(), problem.bound, turn, seed)
    done = search.run(work)
    offset, finished = eject_slowly(instance, filling.offset(), problem.bound, turn, seed, work)
    assert search.offset().tolist() == offset.tolist()
    assert done == finished
    assert why_wrong(instance, search.whole()) == ""


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), plain=st.booleans())
def test_placements_are_valid_and_never_worse_than_what_was_given(seed: int, count: int, plain: bool) -> None:
    instance = random_instance(seed, count, plain=plain)
    offset = place(instance, time_limit=0.01, seed=seed)
    assert why_wrong(instance, offset) == ""
    better = improve(instance, offset, time_limit=0.01, seed=seed)
    assert why_wrong(instance, better) == ""
    assert peak_of(instance, better) <= peak_of(instance, offset)


def training_like(layers: int, seed: int) -> Instance:
    """Forward keeps an activation per layer, backward frees them in reverse and makes gradients that stay to the end."""
    draw = np.random.default_rng(seed)
    lower, upper, size = [], [], []
    end = 8 * layers
    for layer in range(layers):
        there, back = 4 * layer, end - 4 * layer - 4
        rows = [(there, back + 2, 64), (back, end, 24), (there + 1, there + 3, 80), (back + 1, back + 3, 40)]
        for begin, until, nbytes in rows:
            lower.append(begin), upper.append(until), size.append(int(nbytes + draw.integers(0, 8)))
    return plain_instance(*(np.array(column, dtype=np.int64) for column in (lower, upper, size)))


@pytest.mark.parametrize("seed", range(4))
def test_training_like_problems_reach_one_percent_of_the_load(seed: int) -> None:
    instance = training_like(300, seed)
    bound = native_problem(instance).bound
    offset = place(instance, time_limit=5.0, target=int(1.01 * bound))
    assert why_wrong_fast(instance, offset)
    assert peak_of(instance, offset) <= 1.01 * bound


def why_wrong_fast(instance: Instance, offset: np.ndarray) -> bool:
    """Whether no two plain rectangles overlap, pair by pair in columns."""
    for i in range(len(instance)):
        together = (instance.lower[:i] < instance.upper[i]) & (instance.lower[i] < instance.upper[:i])
        overlap = (offset[:i] < offset[i] + instance.size[i]) & (offset[i] < offset[:i] + instance.size[:i])
        if (together & overlap).any():
            return False
    return True


def test_the_same_seed_gives_the_same_placement_and_progress_only_falls() -> None:
    instance = training_like(60, 1)
    seen: list[int] = []
    bound = native_problem(instance).bound
    first = place(instance, time_limit=20.0, target=int(1.01 * bound), progress=lambda peak, _: seen.append(peak))
    again = place(instance, time_limit=20.0, target=int(1.01 * bound))
    assert first.tolist() == again.tolist()
    assert seen == sorted(set(seen), reverse=True)
    assert seen[-1] == peak_of(instance, first)


def test_progress_can_stop_the_search() -> None:
    def stop(peak: int, seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place(training_like(60, 2), time_limit=5.0, progress=stop)


def test_the_orders_put_the_largest_load_first() -> None:
    instance = plain_instance(np.array([0, 0, 8]), np.array([4, 9, 9]), np.array([4, 4, 5]))
    starts = orders(native_problem(instance), instance.lower, instance.upper, instance.size)
    assert starts["load"].order.tolist() == [1, 2, 0]
    assert starts["size"].order.tolist() == [2, 1, 0]
    assert starts["lifetime"].order.tolist() == [1, 2, 0]
    assert all(sorted(start.order.tolist()) == [0, 1, 2] for start in starts.values())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), plain=st.booleans(), work=st.integers(0, 40))
def test_a_filling_that_is_cut_short_is_valid_all_the_same(seed: int, count: int, plain: bool, work: int) -> None:
    instance = random_instance(seed, count, plain=plain)
    problem = native_problem(instance)
    filling = _core.Filling(problem, np.arange(count, dtype=np.int32), BEST_FIT, problem.bound)
    filling.run(work)
    assert why_wrong(instance, filling.whole()) == ""


def test_a_pin_that_leaves_no_room_below_the_load_does_not_stall_the_search() -> None:
    whole = plain_instance(np.array([0, 0, 3]), np.array([4, 4, 4]), np.array([10, 60, 5]))
    pinned = replace(whole, fixed=np.array([50, FREE_OFFSET, FREE_OFFSET]))
    offset = place(pinned, time_limit=0.05)
    assert why_wrong(pinned, offset) == ""
    assert peak_of(pinned, offset) == 120


def test_nothing_to_place_is_placed() -> None:
    empty = plain_instance(*(np.zeros(0, dtype=np.int64),) * 3)
    assert len(place(empty, time_limit=0.01)) == 0
    never_alive = plain_instance(np.array([3]), np.array([3]), np.array([8]))
    assert peak_of(never_alive, place(never_alive, time_limit=0.01)) == 0
