"""Few points stand for many events, and no peak is lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_reports import long_timeline, made_up_timeline

from memfit.report.curves import curve, laid_over, line_points, segments
from memfit.report.decimation import kept_events, phase_edges

lives = st.lists(st.integers(-50, 1000), min_size=1, max_size=400).map(lambda rows: np.array(rows, dtype=np.int64))


@settings(max_examples=200, deadline=None)
@given(live=lives, limit=st.integers(16, 80), asked=st.lists(st.integers(-5, 500), max_size=4))
def test_the_peak_the_ends_and_every_buckets_extremes_stay(live: np.ndarray, limit: int, asked: list[int]) -> None:
    kept = kept_events(live, limit, asked)
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= limit + len(asked)
    assert {0, len(live) - 1, int(np.argmax(live))} <= set(kept.tolist())
    assert {event for event in asked if 0 <= event < len(live)} <= set(kept.tolist())
    edges = np.linspace(0, len(live), limit // 4 + 1).astype(int)
    for start, stop in itertools.pairwise(edges):
        inside = kept[(kept >= start) & (kept < stop)]
        if stop > start:
            assert live[inside].max() == live[start:stop].max()
            assert live[inside].min() == live[start:stop].min()


def test_every_event_around_the_peak_stays() -> None:
    live = np.zeros(100_000, dtype=np.int64)
    live[70_000] = 5
    kept = set(kept_events(live, 400).tolist())
    assert set(range(70_000 - 40, 70_000 + 41)) <= kept


def test_a_limit_too_small_to_keep_the_promise_is_refused() -> None:
    with pytest.raises(ValueError, match="below 16"):
        kept_events(np.arange(9), 15)


def test_phase_edges() -> None:
    assert phase_edges(np.array([3, 3, 1, 1, 3])).tolist() == [0, 2, 4]
    assert phase_edges(np.array([], dtype=np.int64)).tolist() == []


def test_a_curve_keeps_the_peak_of_the_whole_and_of_each_category() -> None:
    drawn = long_timeline(200_000)
    points = curve(drawn, "measured", 400)
    assert points["shown"] <= 400 + 8
    total = np.sum([points["bytes"][name] for name in points["bytes"]], axis=0)
    assert total.max() == drawn.peak == points["peak"]
    assert points["x"][int(total.argmax())] == drawn.peak_event == points["peak_x"]
    for row, name in enumerate(points["bytes"]):
        assert max(points["bytes"][name]) == drawn.by_category[row].max()
    assert len(points["places"]) <= points["shown"]
    assert all(0 <= at < len(points["places"]) for at in points["at"])


def test_phases_of_two_runs_are_laid_over_each_other() -> None:
    first, second = made_up_timeline(layers=8, kind="measured"), made_up_timeline(layers=3)
    events = np.arange(len(second.trace))
    x = laid_over(segments(first), segments(second), events)
    assert (np.diff(x) > 0).all()
    for part, same in zip(segments(second), segments(first), strict=True):
        assert (part.step, part.phase) == (same.step, same.phase)
        assert x[part.start] == same.start
        assert x[part.stop - 1] < same.stop


def test_a_phase_that_the_first_run_has_not_is_left_out() -> None:
    short, long = made_up_timeline(steps=1), made_up_timeline(steps=2)
    points = curve(long, "projected", 4000, over=short)
    assert points["shown"] < points["events"] == len(long.trace)
    assert max(points["x"]) < len(short.trace)


def test_line_points_keep_the_peak_and_run_from_0_to_1() -> None:
    rows = tuple((i / 7 + 3.0, 5 * (i == 31_000)) for i in range(60_000))
    points = line_points(rows, 100)
    assert len(points["x"]) <= 100
    assert (points["x"][0], points["x"][-1], max(points["bytes"])) == (0.0, 1.0, 5)
    assert line_points((), 100) == {"x": [], "bytes": []}
    assert line_points(((2.0, 7),), 100) == {"x": [0.0], "bytes": [7]}
