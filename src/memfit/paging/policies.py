"""The replacement policies by name, and their miss curves: misses at every capacity.

LRU and OPT are stack algorithms, so one pass gives all capacities: LRU by counting the pages used in between (a Fenwick tree
over the order of last uses, Bennett and Kruskal 1975; O(log pages) an access), OPT by Mattson's priority stack (O(stack
distance) an access). The others, and OPT where the stack would cost too much, are simulated at chosen capacities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memfit import _core
from memfit.paging.accesses import Accesses
from memfit.paging.belady_twin import optimal
from memfit.paging.policy import ReplacementPolicy
from memfit.paging.queue_twins import clock, fifo, s3_fifo, sieve
from memfit.paging.recency_twins import arc, lru, mru, two_queues

POLICIES: dict[str, ReplacementPolicy] = {
    policy.name: policy
    for policy in (
        ReplacementPolicy("opt", "OPT", _core.replace_optimal, optimal, online=False),
        ReplacementPolicy("lru", "LRU", _core.replace_lru, lru),
        ReplacementPolicy("fifo", "FIFO", _core.replace_fifo, fifo),
        ReplacementPolicy("clock", "CLOCK", _core.replace_clock, clock),
        ReplacementPolicy("2q", "2Q", _core.replace_two_queues, two_queues),
        ReplacementPolicy("arc", "ARC", _core.replace_arc, arc),
        ReplacementPolicy("s3-fifo", "S3-FIFO", _core.replace_s3_fifo, s3_fifo),
        ReplacementPolicy("sieve", "SIEVE", _core.replace_sieve, sieve),
        ReplacementPolicy("mru", "MRU", _core.replace_mru, mru),
    )
}
POINTS = 48
ALL_CAPACITIES = 128
"""Up to so many pages every capacity is taken."""
STACK_STEPS = 2_000_000_000
"""Levels that OPT's priority stack may be walked, at worst, before sampled capacities are taken instead."""
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MissCurve:
    """``misses[i]`` at ``capacity[i]`` pages. ``exact``: of one pass that knows every capacity."""

    policy: str
    capacity: Ints
    misses: Ints
    exact: bool


def policies_named(names: Sequence[str] | None) -> dict[str, ReplacementPolicy]:
    """The policies of these names; None: all.

    Raises:
        ValueError: there is none of a name.
    """
    if names is None:
        return dict(POLICIES)
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise ValueError(f"there is no replacement policy {unknown[0]!r}; there are {', '.join(POLICIES)}")
    return {name: POLICIES[name] for name in names}


def all_misses(policy: ReplacementPolicy, trace: Accesses) -> Ints | None:
    """Misses at each capacity 0..pages of one pass; None where the policy allows none (see the module text)."""
    if policy.name == "lru":
        return np.asarray(_core.curve_lru(trace.page, trace.pages), np.int64)
    if policy.name == "opt" and len(trace) * trace.pages <= STACK_STEPS:
        return np.asarray(_core.curve_optimal(trace.page, trace.pages), np.int64)
    return None


def chosen_capacities(pages: int, points: int = POINTS) -> Ints:
    """About ``points`` capacities from 1 to ``pages`` (all where they are few), half evenly apart and half by equal factors."""
    if pages <= max(points, ALL_CAPACITIES):
        return np.arange(1, pages + 1, dtype=np.int64)
    even = np.linspace(1, pages, points // 2)
    factors = np.geomspace(1, pages, points - points // 2)
    return np.unique(np.round(np.concatenate([even, factors])).astype(np.int64))


def miss_curve(
    policy: ReplacementPolicy, trace: Accesses, capacities: Ints, say: Callable[[], None] = lambda: None
) -> MissCurve:
    """Misses of ``policy`` at each of ``capacities`` (pages, >= 1); ``say`` is called once a simulation.

    Cost: one pass for LRU and mostly for OPT, else a simulation for each capacity.
    """
    exact = all_misses(policy, trace)
    if exact is not None:
        say()
        return MissCurve(policy.name, capacities, exact[np.minimum(capacities, trace.pages)], True)
    misses = np.empty(len(capacities), np.int64)
    for i, capacity in enumerate(capacities.tolist()):
        say()
        misses[i] = policy.misses(trace, capacity).misses
    return MissCurve(policy.name, capacities, misses, False)
