"""A sweep's page and picture: every combination is there, names stay text, errors are told once."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from memfit.report.sweep_page import sweep_page
from memfit.report.sweep_summary import SweepPoint, SweepReport
from memfit.units import format_bytes

CAPACITY = 1 << 20


def made_up(**swept: tuple[Any, ...]) -> SweepReport:
    points = []
    for number, values in enumerate(itertools.product(*swept.values())):
        row = dict(zip(swept, values, strict=True))
        if number == 1:
            points.append(SweepPoint(row, error="it raises <script>"))
        else:
            size = 300_000 * (number + 1)
            points.append(SweepPoint(row, 1, size, size, 2 * size, size <= CAPACITY, CAPACITY))
    return SweepReport("<b>.py:step", "cpu", CAPACITY, swept, tuple(points), "allocated")


@pytest.mark.parametrize(
    "swept",
    [{"batch": (1, 2, 3, 4, 5, 6)}, {"a": (1, 2), "b": (1, 2, 3)}, {"a": (1, 2), "b": ("x<", "y"), "c": (3, 4)}],
)
def test_the_page_shows_every_combination_and_what_fits(swept: dict[str, tuple[Any, ...]]) -> None:
    report = made_up(**swept)
    page = sweep_page(report)
    for point in report.points:
        assert point.error or format_bytes(point.allocated) in page
    assert page.count('class="no"') == sum(not point.fits and not point.error for point in report.points) > 0
    assert page.count('class="yes"') == sum(point.fits for point in report.points) > 0
    assert page.count("it raises &lt;script&gt;") == (
        1 if len(swept) == 1 else 2
    )  # of a field, also where the pointer rests
    for markup in ("<b>.py", "<script", "x<<"):
        assert markup not in page
    assert "http" not in page.replace("http-equiv", "")


def test_lines_and_what_was_held() -> None:
    report = made_up(a=(1, 2), b=(1, 2, 3))
    assert [values for values, _ in report.lines()] == [(1,), (2,)]
    assert [len(row) for _, row in report.lines()] == [3, 3]
    assert report.headline.startswith("2 of 6 combinations fit in 1.00 MiB on cpu; peak allocated")
    assert report.to_json()["held"] == "allocated"


@pytest.mark.parametrize(
    "swept", [{"batch": (1, 2, 3)}, {"a": tuple(range(60)), "b": (1, 2, 3)}, {"a$": (1, 2), "b": (1, 2)}]
)
def test_the_picture_is_drawn(swept: dict[str, tuple[Any, ...]]) -> None:
    pytest.importorskip("matplotlib", reason="the picture extra is not installed")
    from memfit.report.sweep_picture import sweep_picture

    assert sweep_picture(made_up(**swept)).startswith(b"\x89PNG")
