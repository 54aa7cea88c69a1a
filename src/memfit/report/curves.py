"""Timelines as what a chart draws: few points, their bytes by category, what ran there, and a common axis.

Two runs of one step have different events (a projection sees ops, a measurement every allocator call), so the events of
the second are laid over those of the first phase by phase: within each (step, phase) both run from 0 to 1.

    first    | forward            | backward      | optimizer |      x = event index of the first run
    second   | . .  .   .  .   .  |  .  .  .   .  |  . .   .  |      x = stretched to the same borders
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.analyses.timeline import CATEGORIES, Timeline
from memfit.report.decimation import kept_events, phase_edges
from memfit.report.words import op_word

NAME_LENGTH, PLACE_LENGTH = 80, 140


@dataclass(frozen=True)
class Segment:
    """Events ``start`` to ``stop`` (half-open) of one phase of one step."""

    step: int
    phase: str
    start: int
    stop: int


def segments(timeline: Timeline) -> list[Segment]:
    """The phases of a Timeline in time order. Cost: O(events)."""
    trace = timeline.trace
    if not len(trace):
        return []
    numbers: dict[tuple[int, str], int] = {}
    of_op = np.array([numbers.setdefault((op.step, op.phase), len(numbers)) for op in trace.ops], dtype=np.int64)
    names = list(numbers)
    row = of_op[trace.op]
    edges = [*phase_edges(row).tolist(), len(row)]
    return [Segment(*names[int(row[start])], start, stop) for start, stop in pairwise(edges)]


def laid_over(first: list[Segment], second: list[Segment], events: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Where ``events`` of the second run stand on the axis of the first; NaN for phases that the first has not.

    Phases are matched by step, name and occurrence. With no phase in common the whole runs are laid over each other.
    """
    borders = dict(zip(_occurrences(first), first, strict=True))
    names = _occurrences(second)
    x = np.full(len(events), np.nan)
    holder = np.searchsorted(np.array([part.start for part in second]), events, side="right") - 1
    for number in np.unique(holder):
        part, target = second[number], borders.get(names[number])
        inside = holder == number
        if target is not None:
            share = (events[inside] - part.start) / (part.stop - part.start)
            x[inside] = target.start + share * (target.stop - target.start)
    if len(events) and np.isnan(x).all() and first and second:
        x = events * (first[-1].stop / second[-1].stop)
    return x


def curve(timeline: Timeline, kind: str, limit: int, over: Timeline | None = None) -> dict[str, Any]:
    """Points of one run as plain data: ``x``, bytes per category, index into ``places`` of what ran.

    ``limit``: points at most, apart from one per category. ``over``: the run whose axis is used; left out, its own.
    Cost: O(events).
    """
    trace = timeline.trace
    table = timeline.by_category
    also = [int(event) for event in table.argmax(axis=1)] if len(trace) else []
    events = kept_events(timeline.live, limit, also)
    x = events.astype(np.float64) if over is None else laid_over(segments(over), segments(timeline), events)
    events, x = events[~np.isnan(x)], x[~np.isnan(x)]
    places: dict[tuple[str, str, str, int, str], int] = {}
    at = []
    for event in events:
        op = trace.ops[int(trace.op[event])]
        key = (op_word(op.name)[:NAME_LENGTH], op.module[-PLACE_LENGTH:], op.line[-PLACE_LENGTH:], op.step, op.phase)
        at.append(places.setdefault(key, len(places)))
    seconds = None
    if trace.seconds is not None and len(trace):
        seconds = np.round((trace.seconds[events] - trace.seconds[0]) * 1e3, 3).tolist()
    return {
        "kind": kind,
        "x": [int(value) if value.is_integer() else round(value, 2) for value in x.tolist()],
        "bytes": {
            category.value: table[row, events].tolist()
            for row, category in enumerate(CATEGORIES)
            if table[row, events].any()
        },
        "at": at,
        "places": [list(key) for key in places],
        "milliseconds": seconds,
        "events": len(trace),
        "shown": len(events),
        "peak": timeline.peak,
        "peak_x": _peak_x(timeline, events, x),
    }


def line_points(points: tuple[tuple[float, int], ...], limit: int) -> dict[str, Any]:
    """A curve of (position, bytes) pairs, thinned; positions from 0 to 1."""
    if not points:
        return {"x": [], "bytes": []}
    data = np.array(points, dtype=np.float64)
    kept = kept_events(data[:, 1].astype(np.int64), limit)
    low, high = data[:, 0].min(), data[:, 0].max()
    x = (data[kept, 0] - low) / ((high - low) or 1.0)
    return {"x": np.round(x, 6).tolist(), "bytes": data[kept, 1].astype(np.int64).tolist()}


def _occurrences(parts: list[Segment]) -> list[tuple[int, str, int]]:
    """(step, phase, how many of that name came before) of each part."""
    seen: dict[tuple[int, str], int] = {}
    names = []
    for part in parts:
        nth = seen[(part.step, part.phase)] = seen.get((part.step, part.phase), -1) + 1
        names.append((part.step, part.phase, nth))
    return names


def _peak_x(timeline: Timeline, events: npt.NDArray[np.int64], x: npt.NDArray[np.float64]) -> float | None:
    found = np.flatnonzero(events == timeline.peak_event)
    return float(x[found[0]]) if len(found) else None
