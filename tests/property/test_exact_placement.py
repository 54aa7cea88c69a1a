"""The exact search against brute force and its twin: what it places is valid, what it refuses cannot be placed."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from memfit.planners import exact, exact_twin
from memfit.planners.exact import Switch
from memfit.planners.problem import Instance, Ints, plain_instance


def build(buffers: list[tuple[list[tuple[int, int, int, int]], int, int, int]]) -> Instance:
    """Instance of (pieces, size, alignment, pin) per buffer."""
    pieces = [piece for own, *_ in buffers for piece in own]
    column = [np.array([piece[k] for piece in pieces], np.int64) for k in range(4)]
    start = np.cumsum([0] + [len(own) for own, *_ in buffers])
    return Instance(
        np.array([min(p[0] for p in own) for own, *_ in buffers], np.int64),
        np.array([max(p[1] for p in own) for own, *_ in buffers], np.int64),
        np.array([b[1] for b in buffers], np.int64), np.array([b[2] for b in buffers], np.int64),
        np.array([b[3] for b in buffers], np.int64), start.astype(np.int64), *column,
    )  # fmt: skip


def any_instance(seed: int, kind: str) -> Instance:
    """A small random instance: "whole", or with "gaps", "pins", "alignment", "windows", or "all" of them."""
    dice = random.Random(f"{seed} {kind}")
    buffers = []
    for _ in range(dice.randint(1, 6)):
        lower = dice.randrange(6)
        upper = dice.randint(lower + 1, 8)
        size = dice.choice([1, 2, 2, 3, 4, 5])
        own = [(lower, upper, 0, size)]
        if kind in ("gaps", "all") and upper - lower >= 3 and dice.random() < 0.6:
            cut = dice.randrange(lower + 1, upper - 1)
            own = [(lower, cut, 0, size), (dice.randint(cut + 1, upper - 1), upper, 0, size)]
        if kind in ("windows", "all") and size > 1 and dice.random() < 0.7:
            middle = dice.randint(lower, upper)
            windows = [sorted(dice.sample(range(size + 1), 2)) for _ in range(2)]
            own = [(a, b, *w) for (a, b), w in zip([(lower, middle), (middle, upper)], windows, strict=True) if a < b]
        alignment = dice.choice([1, 1, 2, 3]) if kind in ("alignment", "all") else 1
        pin = dice.randrange(5) * alignment if kind in ("pins", "all") and dice.random() < 0.25 else -1
        buffers.append((own, size, alignment, pin))
    return build(buffers)


def exists(instance: Instance, limit: int) -> bool:
    """Whether a placement exists: every offset of every buffer is tried. Shares nothing with any search."""
    pieces = [exact_twin.pieces_of(instance, i) for i in range(len(instance))]

    def search(offset: list[int]) -> bool:
        i = len(offset)
        if i == len(instance):
            return True
        pin = int(instance.fixed[i])
        for at in [pin] if pin >= 0 else range(0, limit, int(instance.alignment[i])):
            if max(at + p[3] for p in pieces[i]) > limit:
                continue
            if any(exact_twin.clash(pieces[i], at, pieces[j], offset[j]) for j in range(i)):
                continue
            if search([*offset, at]):
                return True
        return False

    return search([])


def pinned_apart(instance: Instance) -> bool:
    """Whether the pinned buffers alone fit somewhere."""
    pinned = [i for i in range(len(instance)) if instance.fixed[i] >= 0]
    pieces = {i: exact_twin.pieces_of(instance, i) for i in pinned}
    return not any(
        exact_twin.clash(pieces[i], int(instance.fixed[i]), pieces[j], int(instance.fixed[j]))
        for i, j in itertools.combinations(pinned, 2)
    )


KINDS = ("whole", "gaps", "pins", "alignment", "windows", "all")


@pytest.mark.parametrize("kind", KINDS)
def test_twin_agrees_with_trying_every_offset(kind: str) -> None:
    answers = set()
    for seed in range(25):
        instance = any_instance(seed, kind)
        for limit in (4, 6, 8):
            offset = exact_twin.place(instance, limit)
            answers.add(offset is not None)
            assert (offset is not None) == exists(instance, limit), (seed, limit)
            assert offset is None or exact_twin.why_invalid(instance, offset, limit) == ""
    assert answers == {True, False}


@pytest.mark.parametrize("kind", KINDS)
def test_native_places_exactly_what_the_twin_places(kind: str) -> None:
    answers = set()
    for seed in range(60):
        instance = any_instance(seed, kind)
        for limit in (3, 5, 7, 8, 10):
            outcome = exact.place(instance, limit)
            answers.add(outcome.status)
            assert outcome.status == ("infeasible" if exact_twin.place(instance, limit) is None else "placed"), (
                seed, limit,
            )  # fmt: skip
            if outcome.offset is not None:
                assert exact_twin.why_invalid(instance, outcome.offset, limit) == "", (seed, limit)
    assert answers == {"placed", "infeasible"}


@pytest.mark.parametrize("kind", KINDS)
def test_least_peak_is_proved_and_the_twins(kind: str) -> None:
    for seed in range(100, 125):
        instance = any_instance(seed, kind)
        if not pinned_apart(instance):
            continue
        least = exact.minimise(instance)
        assert least.proved
        assert least.offset is not None
        assert least.peak == exact_twin.minimise(instance)[1], seed
        assert exact_twin.why_invalid(instance, least.offset, least.peak) == ""


COMBINATIONS = [Switch(0), *Switch, *(exact.ALL & ~one for one in Switch), exact.ALL]


@pytest.mark.parametrize("switches", COMBINATIONS, ids=lambda s: str(int(s)))
def test_each_switch_on_and_off_gives_the_same_optima(switches: Switch) -> None:
    for seed in range(200, 230):
        for kind in ("whole", "all"):
            instance = any_instance(seed, kind)
            if not pinned_apart(instance):
                continue
            least = exact.minimise(instance, switches=switches)
            assert least.proved
            assert least.offset is not None
            assert least.peak == exact.minimise(instance).peak, (seed, kind)
            assert exact_twin.why_invalid(instance, least.offset, least.peak) == ""


def filled(seed: int, count: int, instants: int, largest: int) -> Instance:
    """Random buffers, and one that lives an instant wherever the load is below its maximum: no byte to spare."""
    dice = random.Random(seed)
    lower = [dice.randrange(instants - 1) for _ in range(count)]
    upper = [dice.randint(a + 2, instants) if a + 2 <= instants else instants for a in lower]
    size = [dice.randint(1, largest) for _ in lower]
    load = [sum(s for a, b, s in zip(lower, upper, size, strict=True) if a <= t < b) for t in range(instants)]
    for t, live in enumerate(load):
        if live < max(load):
            lower.append(t)
            upper.append(t + 1)
            size.append(max(load) - live)
    return plain_instance(np.array(lower), np.array(upper), np.array(size))


def load_of(instance: Instance) -> int:
    """Largest sum of live sizes."""
    alive = [instance.size[(instance.lower <= t) & (t < instance.upper)].sum() for t in instance.lower]
    return int(max(alive))


def test_optimum_above_the_load_is_the_twins() -> None:
    instance = filled(246, 6, 5, 4)
    least = exact.minimise(instance)
    assert least.proved
    assert least.peak > load_of(instance)
    assert exact_twin.place(instance, least.peak - 1) is None


@pytest.mark.parametrize("switches", COMBINATIONS, ids=lambda s: str(int(s)))
def test_each_switch_proves_that_a_limit_is_too_low(switches: Switch) -> None:
    """Instances whose optimum lies above the load: proofs by exhaustion, not by the load alone."""
    harder = 0
    for seed in range(40):
        instance = filled(seed, 10, 7, 6)
        least = exact.minimise(instance)
        assert exact.place(instance, least.peak, switches=switches).status == "placed"
        if least.peak > load_of(instance):
            harder += 1
            assert exact.place(instance, least.peak - 1, switches=switches).status == "infeasible"
    assert harder >= 5


def packed(seed: int, pieces: int, span: int, height: int) -> Instance:
    """A rectangle cut into pieces by random straight cuts: fits its height without a spare byte."""
    dice = random.Random(seed)
    parts = [(0, span, 0, height)]
    while len(parts) < pieces:
        parts.sort(key=lambda r: (r[1] - r[0]) * (r[3] - r[2]) * dice.uniform(0.2, 1))
        a, b, low, high = parts.pop()
        if (dice.random() < 0.6 and high - low > 1) or b - a < 2:
            cut = dice.randint(low + 1, high - 1)
            parts += [(a, b, low, cut), (a, b, cut, high)]
        else:
            cut = dice.randint(a + 1, b - 1)
            parts += [(a, cut, low, high), (cut, b, low, high)]
    dice.shuffle(parts)
    columns: list[Ints] = [np.array(column, np.int64) for column in zip(*parts, strict=True)]
    return plain_instance(columns[0], columns[1], columns[3] - columns[2])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_tight_packings_are_solved_and_valid(seed: int, threads: int) -> None:
    instance = packed(seed, 60, 100, 1000)
    outcome = exact.place(instance, 1000, threads=threads)
    assert outcome.status == "placed"
    assert outcome.offset is not None
    assert exact_twin.why_invalid(instance, outcome.offset, 1000) == ""


def test_the_same_seed_gives_the_same_offsets() -> None:
    instance = packed(7, 50, 80, 700)
    for seed in (0, 3):
        first, second = (exact.place(instance, 720, seed=seed).offset for _ in range(2))
        assert first is not None
        assert second is not None
        assert (first == second).all()


def test_time_that_runs_out_is_unknown_and_never_infeasible() -> None:
    instance = packed(1, 40, 60, 500)
    outcome = exact.place(instance, 500, time_limit=0.0)
    assert outcome.status == "unknown"
    assert outcome.offset is None


def test_an_incumbent_is_kept_when_nothing_better_is_found() -> None:
    instance = packed(2, 40, 60, 500)
    stacked = np.concatenate([[0], np.cumsum(instance.size)[:-1]])
    least = exact.minimise(instance, incumbent=stacked, time_limit=0.0)
    assert least.offset is not None
    assert (least.offset == stacked).all()
    assert least.peak == instance.size.sum()
    assert not least.proved


def test_progress_only_improves() -> None:
    seen: list[tuple[int, int]] = []
    exact.minimise(packed(3, 60, 100, 1000), progress=lambda peak, bound: seen.append((peak, bound)))
    assert seen
    assert all(a[0] >= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(seen))


def test_sizes_of_terabytes() -> None:
    scale = 10**12 + 7
    small = packed(4, 30, 50, 300)
    instance = plain_instance(small.lower, small.upper, small.size * scale)
    least = exact.minimise(instance)
    assert least.proved
    assert least.peak == 300 * scale


def test_pinned_buffers_alone() -> None:
    instance = build([([(0, 2, 0, 4)], 4, 1, 0), ([(1, 3, 0, 4)], 4, 1, 6), ([(4, 5, 0, 4)], 4, 1, 2)])
    assert exact.place(instance, 10).status == "placed"
    assert exact.place(instance, 9).status == "infeasible"


def test_figures_beyond_32_bits() -> None:
    one = build([([(0, 2, 0, 8)], 8, 2**40, -1), ([(1, 3, 0, 7)], 7, 1, 2**41)])
    assert exact.place(one, 100).status == "infeasible"
    least = exact.minimise(one)
    assert least.proved
    assert least.peak == 2**41 + 7


def test_pinned_buffers_that_overlap_cannot_be_placed() -> None:
    instance = build([([(0, 2, 0, 4)], 4, 1, 0), ([(1, 3, 0, 4)], 4, 1, 2)])
    assert exact.place(instance, 100).status == "infeasible"
    assert exact.explain(instance, 100) == [0, 1]


@pytest.mark.parametrize("kind", ["whole", "pins", "windows"])
def test_explanation_cannot_fit_and_loses_it_without_any_of_its_buffers(kind: str) -> None:
    explained = 0
    for seed in range(60):
        instance = any_instance(seed, kind)
        if exists(instance, 5):
            assert exact.explain(instance, 5) == []
            continue
        found = exact.explain(instance, 5)
        explained += 1
        assert not exists(exact.subset(instance, found), 5)
        for i in found:
            assert exists(exact.subset(instance, [j for j in found if j != i]), 5)
    assert explained > 5
