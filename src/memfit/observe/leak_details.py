"""Small answers about what grows: its name, its owner, its slots, the words of a finding."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from memfit.ir.leak import Finding, Point
from memfit.observe.chain_words import holder_words, labels
from memfit.observe.compiled_containers import CACHE_TYPE, STREAMS
from memfit.observe.held_bytes import Held, newest
from memfit.observe.leak_curve import Slope
from memfit.observe.retention import Chain, running_frames


def slot_bytes(thing: Any) -> float:
    """What one more entry costs the container itself."""
    if isinstance(thing, STREAMS):
        return 1.0
    if isinstance(thing, dict):
        return 104.0
    return 72.0 if isinstance(thing, (set, CACHE_TYPE)) else 9.0


def container_name(thing: Any) -> str:
    """The kind of a container, that of its base where it is the user's own class."""
    for kind in (dict, list, set):
        if isinstance(thing, kind) and type(thing).__module__ not in ("collections", "builtins"):
            return kind.__name__
    return type(thing).__name__


def element_name(thing: Any) -> str:
    """The type of what was added last."""
    elements = newest(thing, 1) if not isinstance(thing, CACHE_TYPE) else []
    element = elements[0] if elements else None
    if type(element) is tuple and element and not isinstance(element[0], (int, str, float)):
        element = element[0]
    return type(element).__qualname__ if element is not None else ""


def owner_of(chain: Chain) -> tuple[Any, str]:
    """The object, module or code where the last container of a chain is found, and under which name."""
    steps = labels(chain)
    for place in range(len(steps) - 1, -1, -1):
        if steps[place].startswith("."):
            above = chain.objects[place]
            return (chain.objects[place - 1] if isinstance(above, dict) and place else above), steps[place][1:]
        if steps[place].startswith(" (closure variable "):
            return chain.objects[place], steps[place][len(" (closure variable ") : -1]
    name, _, where = chain.root.partition(" in ")
    if where:
        code = next((f.f_code for f in running_frames() if f.f_code.co_qualname + "()" == where), None)
        return code, name
    module, _, key = name.rpartition(".")
    return sys.modules.get(module or "__main__"), key


def what(thing: Any, held: Held, rate: float) -> str:
    """What grows, how fast, and of what it consists."""
    common = [name for name, _ in held.types.most_common(3) if name not in ("cell",)]
    parts = f" ({', '.join(common)})" if common else ""
    number = f"{round(rate)}" if abs(rate - round(rate)) <= 0.03 * rate else f"{rate:.3g}"
    entries = "characters or bytes" if isinstance(thing, STREAMS) else "entry" if number == "1" else "entries"
    name = "lru_cache" if isinstance(thing, CACHE_TYPE) else container_name(thing)
    return f"{name} that gains {number} {entries} a step{parts}"


def steps_of(chain: Chain, held: Held) -> tuple[str, ...]:
    """The holder, then what it keeps alive."""
    below = [name for name, _ in held.types.most_common(4)]
    return (holder_words(chain), *(f"holds {name}" for name in below))


def interval(points: Sequence[Point], nbytes: float) -> tuple[int, int]:
    """Bytes a step between the 10th and 90th percentile of what was seen."""
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points) if b[0] > a[0]]
    if not rates:
        return (0, 0)
    low, high = np.percentile(rates, (10, 90))
    return round(float(low) * nbytes), round(float(high) * nbytes)


def settled(findings: list[Finding], slope: Slope, resident: Slope) -> list[Finding]:
    """Largest first; where estimates come to less than was measured, the largest takes the difference, and where they come
    to more, each is cut to its share: what an element keeps alive is told from samples, the process's growth is measured.
    """
    order = sorted(findings, key=lambda finding: -finding.bytes_per_step)
    total = sum(finding.bytes_per_step for finding in order)
    if order and slope.growing and 0 < total < slope.slope:
        best = order[0]
        order[0] = replace(
            best, bytes_per_step=round(best.bytes_per_step + slope.slope - total),
            interval=(round(min(slope.low, best.bytes_per_step)), round(max(slope.high, best.bytes_per_step))),
        )  # fmt: skip
    most = max(slope.high, slope.total, resident.total)
    if slope.growing and total > most > 0 and all(finding.kind != "worker" for finding in order):
        order = [
            replace(
                finding, bytes_per_step=round(finding.bytes_per_step * most / total),
                interval=(min(finding.interval[0], round(most)), min(finding.interval[1], round(most))),
            )
            for finding in order
        ]  # fmt: skip
    return order[:12]
