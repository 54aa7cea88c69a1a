"""A report for ui.perfetto.dev: bytes by category as counters, phases, modules and ops as nested slices.

The format is Chrome's trace-event JSON (Google, "Trace Event Format", 2016: ``C`` counters, ``X`` slices, ``M`` names),
which Perfetto opens. Times are microseconds of the run where it was timed; else one microsecond stands for one event.
Size is bounded: counters are thinned as in ``decimation`` (peaks stay), and of too many op slices those stay that
allocate most; ``otherData`` says how many were left out.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.analyses.timeline import CATEGORIES, Timeline
from memfit.errors import OutputError
from memfit.report.decimation import kept_events, phase_edges
from memfit.report.summary import MemoryReport

COUNTERS = 20_000
SLICES = 20_000
_TEXT = 200


def perfetto_trace(report: MemoryReport) -> str:
    """The JSON text of a report's timelines. Cost: O(events).

    Raises:
        OutputError: the report holds no events.
    """
    if report.timeline is None or not len(report.timeline.trace):
        raise OutputError("a Perfetto trace", "this report holds no events")
    events: list[dict[str, Any]] = []
    left_out = _process(events, 1, f"{report.kind}: {report.target}", report.timeline)
    if report.projected is not None and len(report.projected.trace):
        left_out += _process(events, 2, f"projected: {report.target}", report.projected)
    other = {"made_by": "memfit", "device": report.device, "op_slices_left_out": left_out}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}, separators=(",", ":"))


def _process(events: list[dict[str, Any]], pid: int, name: str, timeline: Timeline) -> int:
    events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name[:_TEXT]}})
    events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": 1, "args": {"name": "phases, modules, ops"}})
    time = _microseconds(timeline)
    _counters(events, pid, timeline, time)
    return _slices(events, pid, timeline, time)


def _microseconds(timeline: Timeline) -> npt.NDArray[np.float64]:
    """The time of each event, and of the end."""
    seconds = timeline.trace.seconds
    if seconds is None:
        return np.arange(len(timeline.trace) + 1, dtype=np.float64)
    micro = np.maximum.accumulate((seconds - seconds[0]) * 1e6)
    return np.concatenate((micro, [micro[-1] + 1.0]))


def _counters(events: list[dict[str, Any]], pid: int, timeline: Timeline, time: npt.NDArray[np.float64]) -> None:
    table = timeline.by_category
    used = [(row, category.value) for row, category in enumerate(CATEGORIES) if table[row].any()]
    kept = kept_events(timeline.live, COUNTERS // (len(used) + 1), [int(event) for event in table.argmax(axis=1)])
    for event in kept:
        ts = round(float(time[event]), 3)
        for row, category in used:
            events.append(
                {"ph": "C", "name": category, "pid": pid, "ts": ts, "args": {"bytes": int(table[row, event])}}
            )
        events.append({"ph": "C", "name": "live", "pid": pid, "ts": ts, "args": {"bytes": int(timeline.live[event])}})


def _slices(events: list[dict[str, Any]], pid: int, timeline: Timeline, time: npt.NDArray[np.float64]) -> int:
    """Nested slices; returns how many op slices were left out."""
    trace = timeline.trace
    phases = _numbers([(op.step, op.phase) for op in trace.ops])[trace.op]
    modules = _numbers([(op.step, op.phase, op.module) for op in trace.ops])[trace.op]
    for row, named in ((phases, False), (modules, True)):
        edges = phase_edges(row)
        stops = np.append(edges[1:], len(row))
        for start, stop in _widest(edges, stops, SLICES // 2):
            op = trace.ops[int(trace.op[start])]
            name = op.module if named else f"{op.phase}, step {op.step}" if op.step >= 0 else op.phase
            if name:
                events.append(_slice(pid, name, float(time[start]), float(time[stop]), {}))
    edges = phase_edges(trace.op)
    allocated = np.add.reduceat(np.maximum(trace.delta, 0), edges)
    stops = np.append(edges[1:], len(trace))
    order = np.sort(np.argsort(-allocated, kind="stable")[:SLICES])
    for index in order:
        start, stop = int(edges[index]), int(stops[index])
        op = trace.ops[int(trace.op[start])]
        details = {"allocated_bytes": int(allocated[index]), "module": op.module[-_TEXT:], "line": op.line[-_TEXT:]}
        events.append(_slice(pid, op.name, float(time[start]), float(time[stop]), details))
    return len(edges) - len(order)


def _slice(pid: int, name: str, start: float, stop: float, details: dict[str, Any]) -> dict[str, Any]:
    # ts + dur of one slice must not pass the ts of the next, so both ends are rounded, not the length
    start, stop = round(start, 3), round(stop, 3)
    return {
        "ph": "X",
        "name": name[-_TEXT:],
        "pid": pid,
        "tid": 1,
        "ts": start,
        "dur": round(stop - start, 3),
        "args": details,
    }


def _widest(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], limit: int) -> list[tuple[int, int]]:
    """The ``limit`` longest runs, in time order."""
    order = np.sort(np.argsort(starts - stops, kind="stable")[:limit])
    return [(int(starts[index]), int(stops[index])) for index in order]


def _numbers(keys: list[Any]) -> npt.NDArray[np.int64]:
    """A number for each distinct key, in order of appearance."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
