"""What every replacement policy keeps: kernel and twin hit at the same accesses, and no law of paging is broken."""

from __future__ import annotations

import signal
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memfit import _core
from memfit.paging.accesses import Accesses, accesses_of
from memfit.paging.policies import POLICIES, all_misses, chosen_capacities, miss_curve, policies_named
from memfit.paging.policy import ReplacementPolicy
from memfit.testing.access_patterns import cyclic, forward_backward, small_accesses, zipf

EVERY = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())


def fewest_misses(trace: Accesses, capacity: int) -> int:
    """Brute force: of every choice of what leaves, the fewest misses. Shares nothing with any policy."""
    pages = trace.page.tolist()

    @cache
    def rest(t: int, inside: frozenset[int]) -> int:
        if t == len(pages):
            return 0
        if pages[t] in inside:
            return rest(t + 1, inside)
        if len(inside) < capacity:
            return 1 + rest(t + 1, inside | {pages[t]})
        return 1 + min(rest(t + 1, inside - {victim} | {pages[t]}) for victim in inside)

    return rest(0, frozenset())


def agree(policy: ReplacementPolicy, trace: Accesses, capacity: int) -> None:
    fast = policy.misses(trace, capacity, flags=True)
    slow = policy.misses(trace, capacity, twin=True, flags=True)
    assert fast.hit is not None
    assert slow.hit is not None
    assert fast.hit.tolist() == slow.hit.tolist()
    assert (fast.misses, fast.evictions, fast.hits) == (slow.misses, slow.evictions, slow.hits)
    assert policy.misses(trace, capacity).misses == fast.misses


@EVERY
@settings(max_examples=150, deadline=None)
@given(trace=small_accesses(), capacity=st.integers(1, 14))
@example(trace=cyclic(6, 3), capacity=5)
def test_kernel_and_twin_hit_at_the_same_accesses(policy: ReplacementPolicy, trace: Accesses, capacity: int) -> None:
    agree(policy, trace, capacity)


@EVERY
@pytest.mark.parametrize("capacity", [1, 2, 3, 17, 100, 250])
def test_kernel_and_twin_on_long_traces(policy: ReplacementPolicy, capacity: int) -> None:
    agree(policy, zipf(6000, 300, seed=capacity), capacity)


@EVERY
@settings(max_examples=60, deadline=None)
@given(trace=small_accesses(), capacity=st.integers(1, 14))
def test_the_memory_is_never_above_its_capacity(policy: ReplacementPolicy, trace: Accesses, capacity: int) -> None:
    inside = loaded = 0
    seen: set[int] = set()
    for page, memory in zip(trace.page.tolist(), policy.twin(trace.page.tolist(), capacity), strict=True):
        loaded += not memory.hit
        inside = memory.inside
        assert inside <= capacity
        assert loaded == inside + memory.evictions
        assert page in seen or not memory.hit
        seen.add(page)
    outcome = policy.misses(trace, capacity)
    assert outcome.misses == outcome.evictions + inside


@EVERY
@settings(max_examples=40, deadline=None)
@given(trace=small_accesses(11, 6), capacity=st.integers(1, 4))
def test_none_misses_less_than_the_best_of_all_choices(
    policy: ReplacementPolicy, trace: Accesses, capacity: int
) -> None:
    fewest = fewest_misses(trace, capacity)
    assert policy.misses(trace, capacity).misses >= fewest
    if policy.name == "opt":
        assert policy.misses(trace, capacity).misses == fewest


@EVERY
@settings(max_examples=40, deadline=None)
@given(trace=small_accesses(), more=st.integers(0, 5))
def test_with_room_for_all_each_page_misses_once(policy: ReplacementPolicy, trace: Accesses, more: int) -> None:
    outcome = policy.misses(trace, max(trace.pages, 1) + more)
    assert (outcome.misses, outcome.evictions) == (trace.pages, 0)


@EVERY
def test_edges(policy: ReplacementPolicy) -> None:
    empty = policy.misses(accesses_of([]), 3, flags=True)
    assert (empty.misses, empty.evictions, empty.hit_rate) == (0, 0, 0.0)
    distinct = policy.misses(accesses_of(np.arange(50)), 7)
    assert (distinct.misses, distinct.evictions) == (50, 43)
    one = policy.misses(accesses_of([5, 5, 6, 6, 5]), 1, flags=True)
    assert one.hit is not None
    assert one.hit.tolist() == [False, True, False, True, False]
    assert policy.misses(accesses_of([1, 2, 1]), 10**15).misses == 2
    with pytest.raises(ValueError, match="smallest capacity is 1 page"):
        policy.misses(accesses_of([1]), 0)


@settings(max_examples=100, deadline=None)
@given(trace=small_accesses())
def test_one_pass_curves_are_the_simulations(trace: Accesses) -> None:
    for name in ("lru", "opt"):
        curve = all_misses(POLICIES[name], trace)
        assert curve is not None
        one_by_one = [POLICIES[name].misses(trace, c, twin=True).misses for c in range(1, trace.pages + 1)]
        assert curve.tolist() == [len(trace), *one_by_one]


@pytest.mark.parametrize("name", ["lru", "opt"])
def test_one_pass_curves_on_a_long_trace(name: str) -> None:
    """Long enough that the slots of last uses are numbered anew many times."""
    trace = zipf(20_000, 200, seed=3)
    curve = all_misses(POLICIES[name], trace)
    assert curve is not None
    assert (np.diff(curve) <= 0).all()
    for capacity in (1, 2, 9, 77, 150, trace.pages):
        assert curve[capacity] == POLICIES[name].misses(trace, capacity).misses


@pytest.mark.parametrize("name", ["lru", "opt"])
@settings(max_examples=60, deadline=None)
@given(trace=small_accesses(), capacity=st.integers(1, 10))
def test_a_larger_memory_hits_wherever_a_smaller_one_does(name: str, trace: Accesses, capacity: int) -> None:
    """Inclusion for LRU hit by hit; of OPT only the count never grows, for ties may differ."""
    small = POLICIES[name].misses(trace, capacity, flags=True)
    large = POLICIES[name].misses(trace, capacity + 1, flags=True)
    assert large.misses <= small.misses
    if name == "lru":
        assert small.hit is not None
        assert large.hit is not None
        assert not (small.hit & ~large.hit).any()


def test_fifo_shows_beladys_anomaly() -> None:
    trace = accesses_of([1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5])
    assert [POLICIES["fifo"].misses(trace, c).misses for c in (3, 4)] == [9, 10]


def test_cycles_defeat_recency_and_schedules_do_not() -> None:
    trace, capacity = cyclic(96, 10), 76
    rate = {name: policy.misses(trace, capacity).hit_rate for name, policy in POLICIES.items()}
    assert rate["lru"] == rate["fifo"] == rate["clock"] == 0.0
    bound = 0.9 * (capacity - 1) / 95
    assert abs(rate["opt"] - bound) < 0.01
    assert abs(rate["mru"] - bound) < 0.01
    there_and_back = forward_backward(96, 10)
    assert (
        POLICIES["lru"].misses(there_and_back, capacity).misses
        == POLICIES["opt"].misses(there_and_back, capacity).misses
    )


def test_the_best_online_policy_on_skewed_use() -> None:
    trace = zipf(200_000, 10_000)
    capacity = trace.pages // 2
    rate = {name: policy.misses(trace, capacity).hit_rate for name, policy in POLICIES.items()}
    assert max(rate["s3-fifo"], rate["sieve"]) > rate["lru"] > rate["fifo"]
    assert rate["opt"] == max(rate.values())


def test_sampled_curves_are_simulations_and_say_so() -> None:
    trace = zipf(3000, 500)
    capacities = chosen_capacities(trace.pages)
    assert capacities[0] == 1
    assert capacities[-1] == trace.pages
    curve = miss_curve(POLICIES["arc"], trace, capacities)
    assert not curve.exact
    assert curve.misses[7] == POLICIES["arc"].misses(trace, int(capacities[7]), twin=True).misses
    assert miss_curve(POLICIES["opt"], trace, capacities).exact


def test_a_long_curve_can_be_interrupted() -> None:
    """The kernel polls while it runs: left alone, this curve takes seconds."""

    def stop(number: int, frame: object) -> None:
        raise InterruptedError("enough")

    trace = zipf(400_000, 40_000)
    previous = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(InterruptedError, match="enough"):
            _core.curve_optimal(trace.page, trace.pages)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_names() -> None:
    assert list(policies_named(["sieve", "opt"])) == ["sieve", "opt"]
    with pytest.raises(ValueError, match="no replacement policy 'nru'; there are opt, lru"):
        policies_named(["nru"])
