"""What one more element of something that grows keeps alive: bytes, objects, and what they are.

From a few of the newest elements everything reachable is walked that is neither code nor older than the watching. The
first element pays for what all share; the others give the mean. Where one element reaches the next (a chain of graphs,
a linked list) the oldest is walked first, so that each pays for its own part. Cost: 1 us an object, bounded.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np

from memfit.observe.compiled_containers import CACHE_TYPE, contents, is_compiled_container
from memfit.observe.leak_census import Longs
from memfit.observe.probes import Probes

_NOT_ENTERED = (ModuleType, CodeType)
_LARGEST = 60_000


@dataclass
class Held:
    """Per element: ``nbytes``, ``objects``; ``facts``: words and how often; ``types``: of the objects, by name; ``hidden``: of
    those made by compiled code, which may hold memory that no size tells of.
    """

    nbytes: float
    objects: float
    facts: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)


_OPEN = frozenset({
    "builtins", "collections", "functools", "itertools", "operator", "types", "weakref", "_weakref", "_thread", "_abc", "io",
    "_io", "array", "datetime", "decimal", "random", "_random", "_asyncio", "_contextvars", "numpy", "torch",
})  # fmt: skip
"""Where compiled types come from whose objects' sizes are known, or hold nothing beside."""


_hiding: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def _hides_memory(kind: type) -> bool:
    """Whether a type was made by compiled code, so that its objects may hold memory that is no object."""
    known = _hiding.get(kind)
    if known is None:
        known = _hiding[kind] = str(kind.__module__).partition(".")[0] not in _OPEN and not any(
            isinstance(part, FunctionType) for base in kind.__mro__ for part in vars(base).values()
        )
    return known


def held_by(elements: Sequence[Any], old: Longs, probes: Probes, shared: set[int], stop: Collection[int]) -> Held:
    """What each of ``elements`` (oldest first) keeps alive.

    Args:
        elements: some of what was added.
        old: sorted addresses of the objects that were there before.
        shared: keys of memory that was there before (``Probe.shared``).
        stop: ids never entered: the container itself and what holds it.
    """
    seen, memory = set(stop), set(shared)
    total = Held(0, 0)
    each: list[tuple[int, int]] = []
    alive: list[Any] = []
    left = _LARGEST
    for element in elements:
        nbytes = objects = 0
        queue = deque([element])
        while queue and left > 0:
            thing = queue.popleft()
            address = id(thing)
            if address in seen or is_old(address, thing, old):
                continue
            if issubclass(type(thing), _NOT_ENTERED) and not (thing is element and gc.is_tracked(thing)):
                continue  # a module that is added itself is looked into
            seen.add(address)
            alive.append(thing)
            left -= 1
            objects += 1
            try:
                nbytes += sys.getsizeof(thing)
            except Exception:
                nbytes += 64
            nbytes += probes.own_bytes(thing, memory)
            total.types[type(thing).__qualname__] += 1
            if _hides_memory(type(thing)):
                total.hidden[type(thing).__qualname__] += 1
            total.facts.update(probes.facts(thing))
            total.facts.update(_facts(thing))
            if type(thing) is FunctionType:
                queue.extend(x for x in (thing.__closure__, thing.__defaults__, thing.__dict__) if x)
                continue
            more = probes.edges(thing)
            if more is not None:
                queue.extend(child for _, child in more)
            if type(thing) is FrameType:
                queue.extend(c for c in gc.get_referents(thing) if c is not thing.f_globals and c is not thing.f_back)
                continue
            queue.extend(gc.get_referents(thing))
        each.append((nbytes, objects))
    if each:
        counted = each[1:] if len(each) > 1 else each
        total.nbytes = sum(n for n, _ in counted) / len(counted)
        total.objects = sum(n for _, n in counted) / len(counted)
    return total


def _facts(thing: Any) -> tuple[str, ...]:
    if issubclass(type(thing), BaseException):
        return ("exception",)
    if type(thing) is FrameType:
        return ("frame",)
    return ()


def is_old(address: int, thing: Any, old: Longs) -> bool:
    """Whether an object that the collector tracks was there when ``old``, sorted addresses, were looked at."""
    if not gc.is_tracked(thing):
        return False
    place = int(np.searchsorted(old, address))
    return place < len(old) and int(old[place]) == address


def newest(container: Any, count: int) -> list[Any]:
    """Up to ``count`` of what was added last to a container, oldest first; keys that hold something come along."""
    try:
        if type(container) is CACHE_TYPE:
            parts = [part for part in gc.get_referents(container) if part is not container.__wrapped__]
            table = next((part for part in parts if isinstance(part, dict)), None)
            return newest(table, count) if table else parts[-count:]
        if isinstance(container, dict):
            if type(container).__name__ in ("WeakKeyDictionary", "WeakValueDictionary"):
                return []
            found: list[Any] = []
            for key, value in zip(reversed(container), reversed(container.values()), strict=False):
                found.append((value, key) if gc.is_tracked(key) else value)
                if len(found) >= count:
                    break
            if found and issubclass(type(found[0]), (int, float, type(None), bool)):  # the keys are what is kept
                found = [(key, value) for key, value in list(container.items())[-count:]][::-1]
            return found[::-1]
        if isinstance(container, (list, tuple)):
            return list(container[-count:])
        if isinstance(container, deque):
            return [container[i] for i in range(max(0, len(container) - count), len(container))]
        if isinstance(container, (set, frozenset)):
            return list(container)[-count:]
        if is_compiled_container(type(container)):  # in no order: some of all
            parts = [part for part in contents(container) if not issubclass(type(part), (type, ModuleType))]
            return parts[:: -max(1, len(parts) // count)][:count][::-1]
    except RuntimeError:  # it changed while it was looked at, by another thread
        return []
    return []
