"""Which events of a long Timeline to draw, so that a file stays small and no peak is lost.

Half of the points go to equal buckets of events, each giving the event where live bytes are smallest and the one where
they are largest, in time order (min-max decimation, as oscilloscopes do); a quarter to every single event around the
peak; the rest to events asked for by name. Always kept: the first and last event, the peak, the largest of each bucket.

    live   ____/\\___|__/\\/\\__|_____    3 buckets -> at most 6 points, and each spike still stands

Cost: O(events) time, O(points) result.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

SMALLEST_LIMIT = 16


def kept_events(live: npt.NDArray[np.int64], limit: int, also: Iterable[int] = ()) -> npt.NDArray[np.int64]:
    """Indices of the events to draw, increasing, at most ``limit`` (>= 16) plus those of ``also``.

    >>> kept_events(np.arange(4), 16).tolist()
    [0, 1, 2, 3]
    """
    if limit < SMALLEST_LIMIT:
        raise ValueError(f"limit {limit} is below {SMALLEST_LIMIT}")
    count = len(live)
    if count <= limit:
        return np.arange(count, dtype=np.int64)
    peak = int(np.argmax(live))
    edges = np.linspace(0, count, limit // 4 + 1).astype(np.int64)
    chosen = [0, count - 1, peak]
    for start, stop in pairwise(edges):
        bucket = live[start:stop]
        chosen += [int(start + np.argmin(bucket)), int(start + np.argmax(bucket))]
    reach = (limit // 4 - 4) // 2
    near = range(max(peak - reach, 0), min(peak + reach + 1, count))
    asked = [event for event in also if 0 <= event < count]
    return np.unique(np.array([*chosen, *near, *asked], dtype=np.int64))


def phase_edges(segments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where a new segment begins in a row of segment numbers, the start included; empty for an empty row."""
    if not len(segments):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate(([0], np.flatnonzero(np.diff(segments)) + 1)).astype(np.int64)
