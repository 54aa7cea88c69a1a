"""Bounds from parts: never above the optimum, above the load where a part shows it."""

from __future__ import annotations

import random

import numpy as np

from memfit.planners import exact, part_bounds
from memfit.planners.problem import Instance, plain_instance


def filled(seed: int, count: int = 10, instants: int = 7, largest: int = 6) -> Instance:
    """Random buffers, and one that lives an instant wherever the load is below its maximum."""
    dice = random.Random(seed)
    lower = [dice.randrange(instants - 1) for _ in range(count)]
    upper = [dice.randint(min(a + 2, instants), instants) for a in lower]
    size = [dice.randint(1, largest) for _ in lower]
    load = [sum(s for a, b, s in zip(lower, upper, size, strict=True) if a <= t < b) for t in range(instants)]
    short = [(t, max(load) - live) for t, live in enumerate(load) if live < max(load)]
    return plain_instance(
        np.array(lower + [t for t, _ in short]), np.array(upper + [t + 1 for t, _ in short]),
        np.array(size + [gap for _, gap in short]),
    )  # fmt: skip


def load_of(instance: Instance) -> int:
    return int(max(instance.size[(instance.lower <= t) & (t < instance.upper)].sum() for t in instance.lower))


def test_bound_is_between_load_and_optimum_and_sometimes_above_the_load() -> None:
    above = 0
    for seed in range(60):
        instance = filled(seed)
        load, least = load_of(instance), exact.minimise(instance)
        assert least.proved
        bound = part_bounds.raise_bound(instance, load)
        assert load <= bound <= least.peak
        above += bound > load
    assert above >= 3


def test_a_part_bounds_a_longer_problem() -> None:
    """The hard part sits between quiet stretches: the part alone shows what the whole search would have to."""
    part = next(filled(seed) for seed in range(60) if exact.minimise(filled(seed)).peak > load_of(filled(seed)))
    quiet = 40
    instance = plain_instance(
        np.concatenate([part.lower + quiet, np.arange(quiet), np.arange(quiet) + quiet + 7]),
        np.concatenate([part.upper + quiet, np.arange(quiet) + 1, np.arange(quiet) + quiet + 8]),
        np.concatenate([part.size, np.ones(2 * quiet, np.int64)]),
    )
    load = load_of(instance)
    assert load < part_bounds.raise_bound(instance, load) <= exact.minimise(instance).peak


def test_no_time_raises_nothing() -> None:
    instance = filled(2)
    assert part_bounds.raise_bound(instance, load_of(instance), time_limit=0.0) == load_of(instance)
