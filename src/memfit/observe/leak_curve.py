"""Does a curve grow without bound? The slope test, the plateau test, and how sure they are.

Samples are cut into blocks of equal numbers of steps and each block is represented by its minimum: memory that rises
and falls within a few steps (activations, a collector that runs now and then) has a flat lower envelope, a leak has not.
A curve grows when, after the warm-up,

    the envelope rises       Kendall's tau over all pairs of blocks >= 0.6, and 9 of 10 pairs rise
    and does not level off   its slope over the last third is at least two fifths of the slope over all of it
    and matters              at least ``floor`` a step

The slope is the median of the slopes of all pairs of blocks, its interval their 10th and 90th percentile (Theil 1950,
Sen 1968); unlike theirs, pairs are of block minima. Fewer than ``LEAST_STEPS`` steps or ``LEAST_SAMPLES`` samples tell
nothing. Cost: O(samples + BLOCKS^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_STEPS = 10
LEAST_SAMPLES = 6
BLOCKS = 12
WARM_SHARE = 0.2
_RISING = 0.6
_LEVEL = 0.4


@dataclass(frozen=True, slots=True)
class Slope:
    """``growing``: None where too little is known. Per step: ``slope``, ``low``, ``high``; ``late``: of the last third;
    ``total``: from end to end.
    """

    growing: bool | None
    slope: float
    low: float
    high: float
    late: float
    steps: int
    total: float = 0.0


_NOTHING = Slope(None, 0.0, 0.0, 0.0, 0.0, 0)


def slope_of(
    steps: Sequence[int] | npt.NDArray[np.int64], values: Sequence[float] | npt.NDArray[np.float64], floor: float
) -> Slope:
    """The verdict on one curve; ``floor``: the smallest slope that matters.

    >>> slope_of(range(40), [100 * k for k in range(40)], 10).growing
    True
    >>> slope_of(range(40), [min(k, 20) for k in range(40)], 0.1).growing
    False
    """
    at, level = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if len(at) < LEAST_SAMPLES or at[-1] - at[0] < LEAST_STEPS:
        return _NOTHING
    warm = at >= at[0] + WARM_SHARE * (at[-1] - at[0])
    if int(warm.sum()) >= LEAST_SAMPLES - 1:
        at, level = at[warm], level[warm]
    x, y = _envelope(at, level)
    if len(x) < 4:
        return _NOTHING
    first, second = np.triu_indices(len(x), 1)
    slopes = (y[second] - y[first]) / (x[second] - x[first])
    rising = float((slopes > 0).sum() - (slopes < 0).sum()) / len(slopes)
    whole = float(np.median(slopes))
    late = late_slope(x, y)
    low, high = (float(v) for v in np.percentile(slopes, (10, 90)))
    growing = bool(rising >= _RISING and low > 0 and whole >= floor and late >= max(_LEVEL * whole, 0.5 * floor))
    return Slope(growing, whole, low, high, late, int(at[-1] - at[0]), float((level[-1] - level[0]) / (at[-1] - at[0])))


def late_slope(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Slope over the last third of the steps (at least three points): ends against ends."""
    tail = x >= x[-1] - (x[-1] - x[0]) / 3
    if int(tail.sum()) < 3:
        tail = np.zeros(len(x), bool)
        tail[-3:] = True
    x, y = x[tail], y[tail]
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def _envelope(
    at: npt.NDArray[np.float64], level: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The minimum of each block, at the step where it was seen."""
    blocks = min(BLOCKS, max(4, len(at) // 2))
    edges = np.linspace(at[0], at[-1], blocks + 1)
    block = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, blocks - 1)
    x, y = [], []
    for number in range(blocks):
        inside = np.flatnonzero(block == number)
        if len(inside):
            lowest = inside[np.argmin(level[inside])]
            x.append(at[lowest])
            y.append(level[lowest])
    return np.array(x), np.array(y)
