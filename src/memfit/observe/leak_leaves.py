"""What grows and is not among the objects that the collector tracks: found by the objects that refer to it.

A *leaf* is one object that grows itself: an array extended in place, a text or tensor replaced by a larger one. A *table* is
a dict of numbers and bytes, which the collector lets go of. What tells is how many bytes of leaves each object refers to
itself, and how long each table is, at two moments: when growth was first seen, and at the judgement. Cost: 1 us an object,
twice, and only in a program that grows; the graphs behind tensors are counted for at most ``_SECONDS``.
"""

from __future__ import annotations

import array
import gc
import sys
import time
from collections import OrderedDict, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from types import CellType
from typing import TYPE_CHECKING, Any

import numpy as np

from memfit.ir.leak import Finding
from memfit.observe.chain_words import holder_words
from memfit.observe.held_bytes import held_by
from memfit.observe.leak_kinds import Clue, kind_and_fix
from memfit.observe.leak_sources import FLOOR, Source
from memfit.observe.leak_suspects import Suspect
from memfit.observe.retention import Retention
from memfit.runtime.living import Survey

if TYPE_CHECKING:
    from memfit.observe.leak_judge import _Judge
    from memfit.observe.probes import Probes

_LEAVES = (str, bytes, bytearray, array.array)
_OWNERS = (dict, list, OrderedDict, defaultdict, CellType)
_LEAST = 2048
_LEAST_LENGTH = 2
_SECONDS = 1.0
_MOST_NAMED = 6
_SHARE = 0.2


@dataclass(frozen=True)
class Untracked:
    """At step ``count`` of ``source``: bytes of the leaves of each object, by its address, where they are many; lengths of
    ``tables`` by address, and for a while the tables themselves (``kept``).
    """

    source: Source
    count: int
    leaves: dict[int, int]
    tables: dict[int, int]
    kept: dict[int, Any]


def untracked(source: Source, seen: Survey, probes: Probes, own: Collection[int]) -> Untracked:
    """Look at what the objects seen refer to beside each other."""
    found: dict[int, int] = {}
    tables: dict[int, int] = {}
    kept: dict[int, Any] = {}
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
            if kind is dict:
                if len(child) >= _LEAST_LENGTH and not gc.is_tracked(child) and id(thing) not in own:
                    tables[id(child)] = len(child)
                    kept[id(child)] = child
                continue
            known = leaf.get(kind)
            if known is None:
                known = leaf[kind] = issubclass(kind, _LEAVES) or probes.size(child) is not None
            if known:
                total += _size(child, probes, until)
        if total >= _LEAST and id(thing) not in own:
            found[id(thing)] = total
    return Untracked(source, source.count, found, tables, kept)


def _size(leaf: Any, probes: Probes, until: float) -> int:
    if issubclass(type(leaf), _LEAVES):
        size = sys.getsizeof(leaf)
        return size if size >= _LEAST else 0
    return (probes.size(leaf) or 0) if time.thread_time() < until else 0


def _leaves_of(owner: Any) -> list[Any]:
    return [child for child in gc.get_referents(owner) if type(child) is not dict]


def _tables_of(owner: Any) -> list[dict[str, Any]]:
    """The attributes of an object, which move into a dict of their own once somebody asks for it."""
    return [child for child in gc.get_referents(owner) if type(child) is dict] if not isinstance(owner, dict) else []


def grown_tables(before: Untracked, now: Untracked) -> list[Suspect]:
    """Tables that became longer from one moment to the other."""
    found = []
    for address, length in now.tables.items():
        earlier = before.tables.get(address, length)  # one that is new may have been filled at once
        if length > earlier:
            points = [(before.count, earlier), (now.count, length)]
            found.append(Suspect(now.kept[address], points, (length - earlier) / (now.count - before.count)))
    return found


def grown_leaves(court: _Judge, line: str) -> None:
    """Add findings for objects whose leaves have grown by much of what nothing else explains

    ``line``: where memory is taken.
    """
    left, before, now = court.left(), court.watcher.untracked, court.untracked
    if left <= 0 or before is None or now is None:
        return
    span = now.count - before.count
    grown = {address: (size - before.leaves.get(address, 0)) / span for address, size in now.leaves.items()}
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
        leaves = [*_leaves_of(owner), *(leaf for table in _tables_of(owner) for leaf in _leaves_of(table))]
        sizes = [_size(leaf, court.probes, float("inf")) for leaf in leaves]
        if not any(sizes):
            continue
        largest = leaves[int(np.argmax(sizes))]
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
