"""Reference cycles that nobody reaches: what a collection frees, of what kind it is, and round which way the cycle runs.

Python's collector frees cycles, but counts objects, not bytes: a few objects that hold large tensors wait long, and with
the collector off or frozen they wait for ever. ``gc.DEBUG_SAVEALL`` shows what a collection would free. Whether that is a
leak is judged by what the garbage comes to before the collector of this process would run by itself: its oldest generation
is collected once the objects that survived since outnumber a quarter of all.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memfit.machine.own_code import is_users_file
from memfit.observe.chain_words import labels
from memfit.observe.leak_meter import Meter
from memfit.observe.retention import Chain
from memfit.runtime.living import Longs, living

_PLAIN: tuple[Any, ...] = (dict, list, tuple, set, *weakref.ProxyTypes)
PATIENCE_BYTES = 64 << 20
"""Garbage that may pile up before it counts as a leak although the collector will come."""


@dataclass(frozen=True)
class Garbage:
    """What a collection freed of what was made since: ``nbytes`` measured, ``objects``, ``types`` by number, one ``cycle``.

    ``freed``: bytes, what was garbage before the watching included.
    """

    nbytes: int
    objects: int
    types: Counter[str]
    cycle: str
    element: str
    facts: Counter[str]
    freed: int = 0


def collect(meter: Meter, facts_of: Any, old: Longs) -> Garbage:
    """Collect now, and say what it was; ``old``: sorted addresses of what was there before the watching.

    Cost: one full collection, and 1 us per object freed.
    """
    kept_flags, known = gc.get_debug(), len(gc.garbage)
    before = meter.read()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
    finally:
        gc.set_debug(kept_flags)
    garbage = gc.garbage[known:]
    del gc.garbage[known:]
    types = Counter(type(thing).__qualname__ for thing in garbage)
    facts: Counter[str] = Counter()
    for thing in garbage[:5000]:
        facts.update(facts_of(thing))
    cycle, element = _cycle_in(garbage)
    number = len(garbage)
    address = np.fromiter(map(id, garbage), np.int64, number)
    place = np.minimum(np.searchsorted(old, address), max(0, len(old) - 1))
    fresh = float((old[place] != address).mean()) if number and len(old) else 1.0
    del address, place
    del garbage
    gc.collect()
    after = meter.read()
    freed = max(0, before.held - after.held)
    return Garbage(round(fresh * freed), round(fresh * number), types, cycle, element, facts, freed)


def patience(bytes_per_step: float, objects_per_step: float, since: Sequence[int], steps: int) -> float:
    """Bytes of garbage that pile up before the collector of all generations comes by itself; infinite where it never does.

    Args:
        bytes_per_step, objects_per_step: of what has survived the younger generations' collections.
        since: how often each generation was collected in the last ``steps`` steps.
    """
    thresholds = gc.get_threshold()
    if not gc.isenabled() or thresholds[0] == 0:
        return float("inf")
    if objects_per_step <= 0:
        return 0.0
    younger = max(since[1], since[0] / max(1, thresholds[1]), 1 / max(1, thresholds[1])) / max(1, steps)
    due = max(1, thresholds[2]) / younger
    return bytes_per_step * max(due, len(living()) / 4 / objects_per_step)


def _cycle_in(garbage: list[Any]) -> tuple[str, str]:
    """One cycle as ``Node.children[0].parent``, through an object of the user's own classes where there is one."""
    inside = {id(thing): thing for thing in garbage}
    own = [thing for thing in garbage if _is_users(type(thing))]
    others = [t for t in garbage if not issubclass(type(t), _PLAIN)]
    for start in [*own[:8], *others[:8], *garbage[:8]]:
        way = _round_trip(start, inside)
        if way is not None:
            words = "".join(labels(Chain("", 0, way, ("",) * (len(way) - 1))))
            return f"{type(start).__qualname__}{words} is the same {type(start).__qualname__}", type(start).__qualname__
    return "", ""


def _round_trip(start: Any, inside: dict[int, Any]) -> tuple[Any, ...] | None:
    parent: dict[int, Any] = {}
    queue = deque([start])
    while queue and len(parent) < 20_000:
        thing = queue.popleft()
        for child in gc.get_referents(thing):
            if child is start:
                way = [start, thing]
                while way[-1] is not start:
                    way.append(parent[id(way[-1])])
                return tuple(way[::-1]) if thing is not start else (start, start)
            if id(child) in inside and id(child) not in parent:
                parent[id(child)] = thing
                queue.append(child)
    return None


def _is_users(kind: type) -> bool:
    import sys

    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    return kind.__module__ == "__main__" or (isinstance(file, str) and is_users_file(file))
