"""The Perfetto trace is valid Chrome trace-event JSON, bounded, and keeps the peak."""

from __future__ import annotations

import json
from typing import Any

import pytest
from made_up_reports import long_timeline, made_up_memory, made_up_profile

from memfit.errors import OutputError
from memfit.report.perfetto import COUNTERS, SLICES, perfetto_trace


def events_of(text: str) -> list[dict[str, Any]]:
    return list(json.loads(text)["traceEvents"])


def check_valid(events: list[dict[str, Any]]) -> None:
    """What the format demands: known phases, numbers, and slices of one thread that nest."""
    open_until: dict[tuple[int, int], list[float]] = {}
    slices = [event for event in events if event["ph"] == "X"]
    for event in events:
        assert event["ph"] in ("C", "X", "M")
        assert isinstance(event["pid"], int)
        assert isinstance(event["name"], str)
        if event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, int) for value in event["args"].values())
        if event["ph"] != "M":
            assert event["ts"] >= 0
    for event in sorted(slices, key=lambda e: (e["pid"], e["ts"], -e["dur"])):
        assert event["dur"] >= 0
        stack = open_until.setdefault((event["pid"], event["tid"]), [])
        while stack and stack[-1] <= event["ts"] + 1e-6:
            stack.pop()
        end = event["ts"] + event["dur"]
        assert not stack or end <= stack[-1] + 1e-6, event
        stack.append(end)


@pytest.mark.parametrize("report", [made_up_memory, made_up_profile])
def test_valid_with_counters_by_category_and_nested_slices(report: Any) -> None:
    report = report()
    events = events_of(perfetto_trace(report))
    check_valid(events)
    ours = [event for event in events if event["pid"] == 1]
    counters = {event["name"] for event in ours if event["ph"] == "C"}
    assert {"live", "parameters", "activations", "gradients"} <= counters
    names = {event["name"] for event in ours if event["ph"] == "X"}
    assert {"forward, step 0", "backward, step 1", "transformer.h.3.attn", "aten.addmm"} <= names
    assert max(event["args"]["bytes"] for event in ours if event["name"] == "live") == report.timeline.peak


def test_both_runs_are_processes_of_their_own() -> None:
    events = events_of(perfetto_trace(made_up_profile()))
    named = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert named[1].startswith("measured: ")
    assert named[2].startswith("projected: ")


def test_a_million_events_stay_bounded_and_keep_the_peak() -> None:
    drawn = long_timeline(1_000_000)
    text = perfetto_trace(made_up_memory(timeline=drawn))
    events = events_of(text)
    check_valid(events)
    assert sum(event["ph"] == "C" for event in events) <= COUNTERS + 100
    assert sum(event["ph"] == "X" for event in events) <= 2 * SLICES
    assert len(text) < 16_000_000
    assert max(event["args"]["bytes"] for event in events if event["name"] == "live") == drawn.peak


def test_a_report_without_events_is_refused() -> None:
    with pytest.raises(OutputError, match="no events"):
        perfetto_trace(made_up_memory(timeline=None))
