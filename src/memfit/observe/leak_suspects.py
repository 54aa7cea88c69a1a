"""Which containers, caches and types grow from look to look without levelling off.

A look costs too much to be taken at every step, so a suspect is judged by few of them: never shorter than before, and
over the later half at least a third as steep as over the whole. Suspects found early are also measured at every sample
(``Watcher``), which decides where there are enough samples.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from memfit.observe.compiled_containers import CACHE_TYPE
from memfit.observe.leak_census import Look, grown
from memfit.observe.named_values import named_values
from memfit.observe.retention import Chain
from memfit.runtime.living import Survey

LEAST_RATE = 0.02
"""Elements per step below which one container says nothing."""
_LEVEL = 0.34
_MOST = 600
Steps = Callable[[Look], int]


@dataclass
class Suspect:
    """Something that became longer. ``points``: (step, length) at the looks; ``rate``: elements per step, late."""

    thing: Any
    points: list[tuple[int, int]] = field(default_factory=list)
    rate: float = 0.0


@dataclass
class Group:
    """Suspects whose chains have one pattern; ``chain``: that of one of them."""

    pattern: str
    chain: Chain
    suspects: list[Suspect] = field(default_factory=list)


def levels_off(points: Sequence[tuple[int, float]]) -> bool:
    """Whether a row of (step, size) has stopped to grow in its later half, or shrank on the way.

    >>> levels_off([(0, 0), (10, 10), (20, 20), (40, 40)]), levels_off([(0, 0), (10, 10), (20, 20), (40, 20)])
    (False, True)
    """
    if len(points) < 2:
        return True
    first, last = points[0], points[-1]
    half = first[0] + (last[0] - first[0]) / 2
    middle = min(points[:-1], key=lambda point: abs(point[0] - half))
    if last[0] <= middle[0] or last[0] <= first[0]:
        return True
    whole = (last[1] - first[1]) / (last[0] - first[0])
    late = (last[1] - middle[1]) / (last[0] - middle[0])
    return whole <= 0 or late < _LEVEL * whole


def growing_containers(looks: Sequence[Look], seen: Survey, steps: Steps, own: Collection[int]) -> list[Suspect]:
    """Containers that grew from the first look at which they were there to the last, most grown first.

    Args:
        looks: at least two, in order; ``seen``: the objects of the last, or later ones.
        steps: the step of a look; ``own``: addresses left out, the watching's own.
    """
    last = looks[-1]
    gained: dict[int, int] = {}
    for earlier in looks[:-1]:
        for address, number in grown(earlier, last).items():
            gained.setdefault(address, number)
    order = sorted(gained, key=lambda address: -gained[address])[:_MOST]
    wanted = set(order).difference(own)
    chosen = np.flatnonzero(np.isin(seen.address, np.fromiter(wanted, np.int64, len(wanted)))).tolist()
    found: dict[int, Suspect] = {}
    for index in chosen:
        thing = seen.objects[index]
        found[id(thing)] = Suspect(thing)
    addresses = np.fromiter(found, np.int64, len(found))
    for look in looks:
        for address, length in zip(addresses.tolist(), look.lengths_at(addresses).tolist(), strict=True):
            if length >= 0:
                found[address].points.append((steps(look), length))
    for suspect in found.values():
        suspect.rate = _late_rate(suspect.points)
    return [found[address] for address in order if address in found]


def growing_caches(looks: Sequence[Look], seen: Survey, steps: Steps) -> list[Suspect]:
    """Caches of ``functools`` with more entries than before."""
    last = looks[-1].caches
    found = []
    for thing in seen.of_type(CACHE_TYPE):
        if id(thing) in last:
            points = [(steps(look), look.caches[id(thing)][0]) for look in looks if id(thing) in look.caches]
            if len(points) >= 2 and points[-1][1] > points[0][1]:
                found.append(Suspect(thing, points, _late_rate(points)))
    return found


def growing_tables(looks: Sequence[Look], steps: Steps) -> list[Suspect]:
    """Containers with a name that the collector does not track, as a dict of numbers and bytes: found by name only."""
    rising = {}
    for name in looks[-1].named:
        points = [(steps(look), look.named[name]) for look in looks if name in look.named]
        if len(points) >= 2 and points[-1][1] > points[0][1]:
            rising[name] = points
    found = []
    for name, value in named_values(set(rising)):
        if isinstance(value, (dict, set)) and not gc.is_tracked(value):
            found.append(Suspect(value, rising[name], _late_rate(rising[name])))
    return found


def _late_rate(points: Sequence[tuple[int, int]]) -> float:
    if len(points) < 2:
        return 0.0
    half = points[0][0] + (points[-1][0] - points[0][0]) / 2
    middle = min(points[:-1], key=lambda point: abs(point[0] - half))
    return (points[-1][1] - middle[1]) / max(1, points[-1][0] - middle[0])


def summed(suspects: Sequence[Suspect]) -> list[tuple[int, int]]:
    """The points of several suspects as one curve: at each step, the sum of their lengths then."""
    steps = sorted({step for suspect in suspects for step, _ in suspect.points})
    curve = []
    for step in steps:
        total = 0
        for suspect in suspects:
            known = [length for at, length in suspect.points if at <= step]
            total += known[-1] if known else suspect.points[0][1] if suspect.points else 0
        curve.append((step, total))
    return curve
