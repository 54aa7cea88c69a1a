"""How far two results are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memfit.frameworks.comparing import difference


@pytest.mark.parametrize(
    ("expected", "found", "gap"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 100.0], [1.0, 101.0], 0.01),  # relative to the largest value
        ([0.1], [0.2], 0.1),  # and not to one below 1
        ([1 + 1j], [1 + 1.5j], 0.5 / abs(1 + 1j)),  # imaginary parts count
        ([float("nan"), 1.0], [float("nan"), 1.0], 0.0),
        ([float("nan")], [1.0], float("inf")),
        ([1, 2], [1, 3], float("inf")),  # whole numbers are equal or not
    ],
)
def test_the_largest_difference(expected: Any, found: Any, gap: float) -> None:
    error, same = difference(np.array(expected), np.array(found))
    assert error == pytest.approx(gap)
    assert same == (gap == 0)
