"""One object that grows itself, deep inside: an array extended in place, a text or tensor that is replaced by a larger one.

Such objects (*leaves*) have no elements to count, and the collector often does not track them. What tells is how many bytes
of leaves each object refers to itself, at two moments: when growth was first seen, and at the judgement. The object that
refers to them has an address and a chain; the name of the leaf is the last step of it. Cost: 1 us an object, twice, and only
in a program that grows; the graphs behind tensors are counted for at most ``_SECONDS``.
"""

from __future__ import annotations

import array
import gc
import sys
import time
from collections import OrderedDict, defaultdict
from collections.abc import Collection
from types import CellType
from typing import TYPE_CHECKING, Any

from memfit.ir.leak import Finding
from memfit.observe.chain_words import holder_words
from memfit.observe.held_bytes import held_by
from memfit.observe.leak_kinds import Clue, kind_and_fix
from memfit.observe.leak_sources import FLOOR
from memfit.observe.retention import Retention
from memfit.runtime.living import Survey

if TYPE_CHECKING:
    from memfit.observe.leak_judge import _Judge
    from memfit.observe.probes import Probes

_LEAVES = (str, bytes, bytearray, array.array)
_OWNERS = (dict, list, OrderedDict, defaultdict, CellType)
_LEAST = 2048
_SECONDS = 1.0
_MOST_NAMED = 6
_SHARE = 0.2


def leaf_bytes(seen: Survey, probes: Probes, own: Collection[int]) -> dict[int, int]:
    """Bytes of the leaves that each object refers to itself, by its address; objects with few are left out."""
    found: dict[int, int] = {}
    until = time.thread_time() + _SECONDS
    referents = gc.get_referents
    leaf: dict[type, bool] = {}
    for thing in seen.objects:
        kind = type(thing)
        if kind.__module__ == "builtins" and kind not in _OWNERS:
            continue
        total = 0
        for child in referents(thing):
            kind = type(child)
            known = leaf.get(kind)
            if known is None:
                known = leaf[kind] = issubclass(kind, _LEAVES) or probes.size(child) is not None
            if known:
                total += _size(child, probes, until)
        if total >= _LEAST and id(thing) not in own:
            found[id(thing)] = total
    return found


def _size(leaf: Any, probes: Probes, until: float) -> int:
    if isinstance(leaf, _LEAVES):
        size = sys.getsizeof(leaf)
        return size if size >= _LEAST else 0
    return (probes.size(leaf) or 0) if time.thread_time() < until else 0


def grown_leaves(court: _Judge, line: str) -> None:
    """Add findings for objects whose leaves have grown by much of what nothing else explains

    ``line``: where memory is taken.
    """
    left, before = court.left(), court.watcher.leaves
    if left <= 0 or before is None or before[0] is not court.source:
        return
    span = court.last_step - before[1]
    if span < 5:
        return
    now = leaf_bytes(court.seen, court.probes, court.own)
    grown = {address: (size - before[2].get(address, 0)) / span for address, size in now.items()}
    chosen = sorted((a for a in grown if grown[a] >= max(FLOOR, _SHARE * left)), key=lambda a: -grown[a])[:_MOST_NAMED]
    if not chosen:
        return
    objects = {int(address): at for at, address in enumerate(court.seen.address.tolist())}
    owners = [court.seen.objects[objects[address]] for address in chosen]
    chains = Retention(court.probes.edges, court.skip).find(owners)
    for owner in owners:
        chain = chains.get(id(owner))
        if chain is None or court.left() <= 0 or any(id(above) in court.flagged for above in chain.objects):
            continue
        leaves = [child for child in gc.get_referents(owner) if _size(child, court.probes, float("inf"))]
        largest = max(leaves, key=lambda child: _size(child, court.probes, float("inf")))
        holder = holder_words(type(chain)(chain.root, chain.rank, (*chain.objects, largest), (*chain.labels, "")))
        held = held_by([largest], court.looks[0].address, court.probes, court.watcher.shared, ())
        kind, fix = kind_and_fix(Clue(holder, "", type(largest).__qualname__, held))
        name = holder.partition(" in ")[0]
        if kind == "graph":
            what = "one graph that gets longer at every step"
            fix = f"{name} carries the graph of all earlier steps: take .detach() of it before it is used again"
        else:
            kind, what = "replaced", f"one {type(largest).__qualname__} that gets larger at every step"
            fix = f"{name} gets longer at every step: keep a running result, or write the parts out and clear it"
        court.flagged.add(id(owner))
        court.found.append(Finding(
            kind, what, holder, line, round(grown[id(owner)]), 1.0, fix, line, (holder,),
            (round(grown[id(owner)]), round(grown[id(owner)])),
        ))  # fmt: skip
