"""Least cuts against every choice of cuts."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.passes.cuts import cuts, least_cuts


def parts(count: int, path: tuple[int, ...]) -> list[tuple[int, int]]:
    edges = [0, *(p + 1 for p in path), count]
    return list(itertools.pairwise(edges))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9), st.integers(0, 30))
def test_no_choice_of_cuts_within_the_bound_has_fewer_bytes(rows: list[tuple[int, int]], bound: int) -> None:
    alive, inner = [a for a, _ in rows], [b for _, b in rows]
    sums = [0, *itertools.accumulate(inner)]
    best = min(
        sum(alive[p] for p in path)
        for size in range(len(rows))
        for path in itertools.combinations(range(len(rows) - 1), size)
        if all(sums[b] - sums[a] <= bound or b - a == 1 for a, b in parts(len(rows), path))
    )
    path = tuple(least_cuts(alive, sums, bound))
    assert sum(alive[p] for p in path) == best
    assert all(sums[b] - sums[a] <= bound or b - a == 1 for a, b in parts(len(rows), path))


def test_a_chain_of_equal_layers_is_cut_between_them() -> None:
    alive, inner = [4, 3, 1] * 9, [4, 3, 1] * 9
    chosen = cuts(alive, inner)
    assert chosen
    assert all(position % 3 == 2 for position in chosen)
    assert cuts([5, 5], [1, 1]) == []
