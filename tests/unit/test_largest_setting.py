"""The largest value that fits, on made-up programs whose peak is known at every value."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from memfit.analyses.timeline import timeline
from memfit.api.largest_setting import SizeModel, largest_setting
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage


def made_up(value: int, scratch: Callable[[int], int] = lambda v: 0) -> Trace:
    shapes = [(100,), (value, 10), (4, value, value), (value,)]
    rows = [TraceStorage(4 * int(np.prod(shape)), Category.ACTIVATIONS, 0, shape, "float32") for shape in shapes]
    if scratch(value):
        rows.append(TraceStorage(scratch(value), Category.TEMPORARIES, 0))
    order = [*range(len(rows)), *range(1, len(rows))]
    delta = [rows[i].nbytes * (1 if position < len(rows) else -1) for position, i in enumerate(order)]
    return Trace(
        "projected", (TraceOp("op"),), tuple(rows), np.array(order), np.array(delta), np.zeros(len(order), np.int64)
    )


def largest(budget: int, make: Callable[[int], Trace], base: int = 3) -> dict[str, object]:
    def need(trace: Trace) -> tuple[int, bool]:
        return timeline(trace).peak, timeline(trace).peak <= budget

    return largest_setting("length", base, make(base), make, need, lambda *_: None)


def brute_force(budget: int, make: Callable[[int], Trace]) -> int:
    return next(v for v in range(1, 10_000) if timeline(make(v)).peak > budget) - 1


def test_sizes_between_and_beyond_two_traces_are_exact_for_products_of_dimensions() -> None:
    model = SizeModel.of(3, made_up(3), 6, made_up(6))
    assert model is not None
    for value in (1, 2, 5, 17, 400):
        assert timeline(model.at(value)).peak == timeline(made_up(value)).peak


@pytest.mark.parametrize("budget", [10_000, 33_333, 1_000_000, 50_000_000])
def test_two_traces_find_what_trying_every_value_finds(budget: int) -> None:
    found = largest(budget, made_up)
    assert found["value"] == brute_force(budget, made_up)
    assert found["confirmed"] is True
    assert found["traces"] in (2, 3)


def test_a_scratch_that_is_no_straight_line_never_gives_an_answer_that_does_not_fit() -> None:
    def make(value: int) -> Trace:
        return made_up(value, lambda v: 64 * v * v)

    found = largest(1_000_000, make)
    assert found["confirmed"] is True
    assert 0 <= brute_force(1_000_000, make) - int(str(found["value"])) <= 2


def test_a_program_that_changes_its_structure_is_traced_at_each_try() -> None:
    def make(value: int) -> Trace:
        return made_up(value, lambda v: 1000 if v % 2 else 0)

    assert largest(100_000, make)["value"] == brute_force(100_000, make)


def test_nothing_fits() -> None:
    assert largest(100, made_up)["value"] == 0
