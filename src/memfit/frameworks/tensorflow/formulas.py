"""A size that was seen at several numbers of the open dimensions -> the formula that gives them all, or none.

Tried in this order, each checked against every observation: a number; a*s + c; a*((s + c)//d) + e, which is what windows and
strides make; a*s*t + b*s + c*t + d; a product of three. Observations take numbers without common structure, so that what
holds at all of them holds by rule and not by chance. Cost: about 50 us a size.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from memfit.ir.dimension import Size, number, product, symbol

_DIVISORS = 64


def formula(points: Sequence[Mapping[str, int]], values: Sequence[int]) -> Size | None:
    """The size as an expression of the dimensions, None where no form fits.

    Args:
        points: numbers of the dimensions, the same names in each.
        values: what the size was at each point.
    """
    if len(set(values)) == 1:
        return values[0]
    names = sorted(points[0])
    for count in (1, 2, 3):
        for chosen in itertools.combinations(names, count):
            terms = [part for n in range(count + 1) for part in itertools.combinations(chosen, n)]
            if len(terms) >= len(points):
                continue
            found = _polynomial(terms, points, values)
            if found is not None:
                return found
        if count == 1:
            for name in names:
                found = _stepped(name, points, values)
                if found is not None:
                    return found
    return None


def _polynomial(
    terms: Sequence[tuple[str, ...]], points: Sequence[Mapping[str, int]], values: Sequence[int]
) -> Size | None:
    rows = np.array([[float(np.prod([point[name] for name in term])) for term in terms] for point in points])
    scale = np.abs(rows).max(axis=0)
    solved = np.linalg.lstsq(rows / scale, np.array(values, dtype=float), rcond=None)[0] / scale
    factors = [round(x) for x in solved]
    size: Size = 0
    for term, factor in zip(terms, factors, strict=True):
        size = size + product([symbol(name) for name in term]) * factor
    return size if _holds(size, points, values) else None


def _stepped(name: str, points: Sequence[Mapping[str, int]], values: Sequence[int]) -> Size | None:
    """a*((s + c)//d) + e: the step is a where the size changes, d follows from the slope."""
    xs = np.array([point[name] for point in points])
    ys = np.array(values)
    order = np.argsort(xs)
    xs, ys = xs[order], ys[order]
    if xs[-1] == xs[0]:
        return None
    slope = (ys[-1] - ys[0]) / (xs[-1] - xs[0])
    if slope <= 0:
        return None
    gaps = np.diff(ys)
    step = int(np.gcd.reduce(np.abs(gaps[gaps != 0]).astype(int)))
    for factor in dict.fromkeys((step, 1)):
        for divisor in range(2, _DIVISORS + 1):
            if abs(factor / divisor - slope) > factor * 1.5 / (xs[-1] - xs[0]):
                continue
            for shift in (0, divisor - 1, *range(1, divisor - 1)):  # what divides without rest first, then rounding up
                rest = ys - factor * ((xs + shift) // divisor)
                if (rest == rest[0]).all():
                    size: Size = ((symbol(name) + shift) // divisor) * factor + int(rest[0])
                    return size
    return None


def _holds(size: Size, points: Sequence[Mapping[str, int]], values: Sequence[int]) -> bool:
    return all(number(size, point) == value for point, value in zip(points, values, strict=True))
