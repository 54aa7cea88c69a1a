"""The knapsack over formats: never over the budget, never below the bound, and as good as brute force on small cases."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.passes.allocation import Choice, allocate, brute_force, lower_bound, smallest

_CHOICE = st.builds(Choice, st.integers(0, 60), st.floats(0, 10, allow_nan=False).map(lambda x: round(x, 3)))
_LAYERS = st.lists(st.lists(_CHOICE, min_size=1, max_size=4), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(_LAYERS, st.floats(0, 1))
def test_as_good_as_brute_force_where_cells_are_bytes(layers: list[list[Choice]], share: float) -> None:
    least, most = smallest(layers), sum(max(choice.bytes for choice in layer) for layer in layers)
    budget = least + int((most - least) * share)
    exact = brute_force(layers, budget)
    assert exact is not None
    found = allocate(layers, budget)
    assert found.bytes <= budget
    assert found.bytes == sum(layer[pick].bytes for layer, pick in zip(layers, found.picks, strict=True))
    assert found.error == pytest.approx(sum(layer[pick].error for layer, pick in zip(layers, found.picks, strict=True)))
    assert lower_bound(layers, budget) <= exact.error + 1e-9
    assert found.error == pytest.approx(exact.error, abs=1e-9)  # cells are single bytes at these sizes
    assert found.bound <= exact.error + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.builds(Choice, st.integers(0, 10**7), st.floats(0, 10)), min_size=1, max_size=4),
        min_size=1,
        max_size=6,
    ),
    st.floats(0, 1),
)
def test_large_sizes_keep_the_budget_and_the_bound(layers: list[list[Choice]], share: float) -> None:
    least, most = smallest(layers), sum(max(choice.bytes for choice in layer) for layer in layers)
    budget = least + int((most - least) * share)
    found, exact = allocate(layers, budget), brute_force(layers, budget)
    assert exact is not None
    assert found.bytes <= budget
    assert lower_bound(layers, budget) - 1e-9 <= exact.error <= found.error + 1e-9


def test_more_budget_gives_no_more_error() -> None:
    layers = [[Choice(100, 0.0), Choice(50, 1.0 + i), Choice(25, 9.0 + i)] for i in range(8)]
    errors = [allocate(layers, budget).error for budget in range(200, 801, 25)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


def test_one_setting_for_all_is_beaten_where_layers_differ() -> None:
    layers = [[Choice(80, 0.0), Choice(40, 1.0)], [Choice(80, 0.0), Choice(40, 100.0)]]
    assert allocate(layers, 120).picks == (1, 0)


def test_a_budget_below_the_smallest_is_refused() -> None:
    with pytest.raises(ValueError, match="below the smallest"):
        allocate([[Choice(5, 0.0)]], 4)
    assert brute_force([[Choice(5, 0.0)]], 4) is None
