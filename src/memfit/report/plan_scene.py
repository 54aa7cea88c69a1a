"""What a picture of a placement shows, for the page and the PNG alike: rectangles of time x bytes, and the load above.

A rectangle a piece of a buffer: as wide as it lives, as high as its bytes, at its offset. A picture has so many pixels, so
of many buffers the largest are drawn one by one, and what is smaller is merged: laid on a grid of about one pixel a
cell and cut into runs, so that every byte in use is covered and nothing else is::

    60,000 buffers  -->  the 24,000 largest, with names  +  runs of cells that the others cover, without

The load is thinned to the largest (and the smallest) of each column of pixels: its peak always stands. Cost: O(pieces
log pieces + cells).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memfit.planners.load import Load, load_of
from memfit.planners.problem import Ints
from memfit.report.plan_summary import PlanReport
from memfit.report.words import COLOURS, TENSOR_WORDS

SHOWN = 24_000
GRID = (1200, 700)
CURVE = 1500

SIZE_COLOURS = (
    ("#2b5c8a", "#3b78b0"), ("#3f8f9e", "#4fa9b8"), ("#6d9c4b", "#85b862"), ("#d9a441", "#e8b95c"), ("#c9573c", "#e0745a"),
)  # fmt: skip
"""Colours of buffers by their share of the peak, small to large, on a light and a dark ground."""

SIZE_CLASSES = (
    (0.001, "under 0.1 %"),
    (0.01, "0.1 to 1 %"),
    (0.05, "1 to 5 %"),
    (0.2, "5 to 20 %"),
    (np.inf, "20 % or more"),
)
"""Upper ends of the classes of size, as shares of the peak, and what they are called."""


@dataclass(frozen=True)
class Key:
    """A colour of the picture: what it means, on a light and on a dark ground."""

    word: str
    light: str
    dark: str


@dataclass(frozen=True)
class Panel:
    """One memory. Rectangles as columns: [left, right) in instants, [low, high) in bytes.

    ``buffer``: whose the rectangle is; ``key``: index into ``Scene.keys``. ``merged``: rows (left, right, low, high) of
    what is too small to draw one by one, ``merged_count`` buffers. ``load``: of the buffers that lie here.
    """

    name: str
    peak: int
    capacity: int | None
    left: Ints
    right: Ints
    low: Ints
    high: Ints
    buffer: Ints
    key: Ints
    merged: Ints
    merged_count: int
    load: Load


@dataclass(frozen=True)
class Scene:
    """See the module text. ``coloured_by``: what the colours stand for, in words; ``load``: of the whole."""

    panels: tuple[Panel, ...]
    keys: tuple[Key, ...]
    coloured_by: str
    begin: int
    end: int
    load: Load


def scene_of(report: PlanReport, shown: int = SHOWN, grid: tuple[int, int] = GRID) -> Scene:
    """The picture of a report's best placement. ``shown``: rectangles drawn one by one; ``grid``: cells for the rest."""
    problem, best = report.problem, report.best
    odd = np.array(sorted(problem.pieces), dtype=np.int64)
    whole = np.setdiff1d(np.arange(len(problem)), odd)
    rest = [(b, p.lower, p.upper, p.low, p.high) for b in odd.tolist() for p in problem.pieces[b]]
    extra = np.array(rest, dtype=np.int64).reshape(-1, 5)
    columns = (whole, problem.lower[whole], problem.upper[whole], np.zeros(len(whole), np.int64), problem.size[whole])
    buffer, left, right, low, high = (np.concatenate([c, extra[:, i]]) for i, c in enumerate(columns))
    low, high = low + best.offset[buffer], high + best.offset[buffer]
    begin, end = (int(left.min()), int(right.max())) if len(left) else (0, 1)
    keys, key, coloured_by = _keys(report)
    share = max(1, shown // len(problem.memories))
    panels = []
    for index, memory in enumerate(problem.memories):
        mine = best.memory[buffer] == index
        if not mine.any() and len(problem.memories) > 1:
            continue
        peak = report.memory_peaks[index]
        width = np.maximum((right - left)[mine] / max(end - begin, 1) * grid[0], 0.5)
        height = np.maximum((high - low)[mine] / max(peak, 1) * grid[1], 0.5)
        order = np.argsort(-(width * height), kind="stable")
        rows = np.flatnonzero(mine)[order]
        single, small = np.sort(rows[:share]), rows[share:]
        merged = _merged(
            left[small] - begin, right[small] - begin, low[small], high[small], max(end - begin, 1), peak, grid
        )
        merged[:, :2] += begin
        panels.append(
            Panel(
                memory.name, peak, memory.capacity, left[single], right[single], low[single], high[single], buffer[single],
                key[buffer[single]], merged, len(np.unique(buffer[small])), thinned(load_of(problem, best.memory == index)),
            )
        )  # fmt: skip
    return Scene(tuple(panels), keys, coloured_by, begin, end, thinned(report.load))


def thinned(load: Load, columns: int = CURVE) -> Load:
    """A load of few points: of each of ``columns`` columns of time the largest and the smallest value, in time order."""
    if len(load.times) <= 3 * columns:
        return load
    span = max(int(load.times[-1] - load.times[0]), 1)
    column = (load.times - load.times[0]) * columns // (span + 1)
    order = np.lexsort((load.nbytes, column))
    first = np.flatnonzero(np.diff(column[order], prepend=-1))
    last = np.append(first[1:], len(order)) - 1
    kept = np.unique(np.concatenate([order[first], order[last], [0, len(load.times) - 1, int(np.argmax(load.nbytes))]]))
    return Load(load.times[kept], load.nbytes[kept])


def _keys(report: PlanReport) -> tuple[tuple[Key, ...], Ints, str]:
    """The colours, that of each buffer, and what they stand for: categories where known, else sizes."""
    problem = report.problem
    categories = problem.meta.get("category")
    if categories:
        used = [name for name in COLOURS if name in set(categories)]
        place = {name: index for index, name in enumerate(used)}
        other = max(len(used) - 1, 0)
        key = np.array([place.get(name, other) for name in categories], dtype=np.int64)
        return tuple(Key(TENSOR_WORDS.get(name, name), *COLOURS[name]) for name in used), key, "what the buffer is for"
    shares = problem.size / max(report.best.peak, 1)
    key = np.searchsorted([limit for limit, _ in SIZE_CLASSES], shares, side="right").astype(np.int64)
    keys = tuple(Key(word, *colours) for (_, word), colours in zip(SIZE_CLASSES, SIZE_COLOURS, strict=True))
    return keys, key, "the buffer's size, as a share of the peak"


def _merged(left: Ints, right: Ints, low: Ints, high: Ints, span: int, peak: int, grid: tuple[int, int]) -> Ints:
    """Rows (left, right, low, high) that cover rectangles on a grid over ``span`` instants and ``peak`` bytes."""
    if not len(left):
        return np.zeros((0, 4), dtype=np.int64)
    across, up = grid
    x0, x1 = (left * float(across) / span).astype(np.int64), np.ceil(right * float(across) / span).astype(np.int64)
    y0, y1 = (low * float(up) / peak).astype(np.int64), np.ceil(high * float(up) / peak).astype(np.int64)
    change = np.zeros((up + 1, across + 1), dtype=np.int32)
    x1, y1 = np.minimum(x1, across), np.minimum(y1, up)
    for y, x, value in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        np.add.at(change, (y, x), value)
    covered = change.cumsum(axis=0).cumsum(axis=1)[:up, :across] > 0
    runs: list[tuple[int, int, int, int]] = []
    opened: dict[tuple[int, int], int] = {}
    for line in range(up + 1):
        row = covered[line] if line < up else np.zeros(across, dtype=bool)
        edges = np.flatnonzero(np.diff(row, prepend=False, append=False)).reshape(-1, 2)
        now = {(begin, end) for begin, end in edges.tolist()}
        for begin, end in [ends for ends in opened if ends not in now]:
            runs.append((begin, end, opened.pop((begin, end)), line))
        for ends in now:
            opened.setdefault(ends, line)
    rows = np.array(runs, dtype=np.float64) * (span / across, span / across, peak / up, peak / up)
    return np.rint(rows).astype(np.int64)
