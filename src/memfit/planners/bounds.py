"""Bytes that no placement of a Problem can stay below: the load, and the ends of pins.

The load of an instant is the sum of the sizes alive at it. Buffers at one offset count once (must-alias classes), gaps and
windows count what is in use, and in-place pairs count as if the best of them were used at every instant alone: where
pairs are alive, the buffers they connect are covered by sets that could lie at one offset, each as large as its
largest member; exact up to ten connected buffers that begin at one byte of theirs. Above that, and where windows begin
elsewhere (two that are not paired may then both lie inside a third), the largest set found in which no two are paired.
With several memories the sum of the peaks is at least the load of all buffers, and at least the sum over memories of
the load of the buffers forced into each. Where all offsets in one memory share an alignment, sizes count as rounded up
to it, but for one buffer alive at the instant, which may lie on top: the one that gains most. Cost: O(n log n), and the
in-place pairs alive at each instant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from memfit.planners import reduce
from memfit.planners.problem import Instance, Ints, Problem
from memfit.planners.reduce import Groups, groups_of, restrict, sections, whole_instance

_EXACT = 10  # connected in-place buffers up to which the best merges at one instant are found exactly
_TIED = 300  # buffers up to which a set with pairs or pieces is made irreducible
_FULLEST = 64  # instants, fullest first, at which rounding to the alignment is looked at
_INSTANTS = 200_000  # pairs x instants up to which each instant is looked at alone


@dataclass(frozen=True)
class Load:
    """``nbytes``: a lower bound on the peak; ``instant`` at which ``buffers`` need it (-1 and (): no one instant does).

    ``reason``: the bound in words.
    """

    nbytes: int
    instant: int
    buffers: tuple[int, ...]
    reason: str


def profile(instance: Instance) -> tuple[Ints, Ints]:
    """Bytes alive in each section of an Instance, and the instant at which the section is full. Cost: O(n log n)."""
    lower, upper, full = sections(instance.piece_lower, instance.piece_upper)
    return _sum_over(lower, upper, instance.piece_high - instance.piece_low, len(full)), full


def _sum_over(lower: Ints, upper: Ints, value: Ints, count: int) -> Ints:
    """For each of ``count`` sections, the sum of the values whose interval holds it."""
    change = np.zeros(count + 1, dtype=np.int64)
    np.add.at(change, lower, value)
    np.add.at(change, upper, -value)
    return np.cumsum(change)[:-1]


def load_of(instance: Instance) -> int:
    """Largest sum of bytes alive at one instant, or the highest end of a pin: no placement's peak is lower."""
    pins = instance.fixed >= 0
    loads = profile(instance)[0]
    least = max(int(loads.max(initial=0)), int((instance.fixed + instance.size)[pins].max(initial=0)))
    return _with_padding(instance, None, least)[0]


def _with_padding(instance: Instance, saved: Callable[[Instance, Ints], Ints] | None, least: int) -> tuple[int, int]:
    """The bound with sizes rounded up to the common alignment, where it is above ``least``, and its section (else -1)."""
    step = reduce.common_alignment(instance.alignment, instance.piece_low)
    if step == 1 or not (instance.piece_high % step).any():
        return least, -1
    high = reduce.round_up(instance.piece_high, step)
    padding = high - instance.piece_high
    padded = replace(instance, piece_high=high)
    loads = profile(padded)[0]
    loads = loads - (saved(padded, loads) if saved else 0)
    lower, upper, _ = sections(instance.piece_lower, instance.piece_upper)
    best, at = least, -1
    for section in np.argsort(-loads, kind="stable")[:_FULLEST].tolist():
        if loads[section] <= best:
            break
        on_top = int(padding[(lower <= section) & (section < upper)].max(initial=0))
        if loads[section] - on_top > best:
            best, at = int(loads[section]) - on_top, section
    return best, at


def load(problem: Problem) -> Load:
    """The largest of the bounds in the module text, with where it comes from."""
    groups = groups_of(problem)
    best = _load_in(problem, groups, None)
    if len(problem.memories) == 1:
        return best
    forced = [_load_in(problem, groups, memory) for memory in range(len(problem.memories))]
    total = sum(f.nbytes for f in forced)
    if total <= best.nbytes:
        return best
    used = [f"{f.nbytes} in {m.name}" for f, m in zip(forced, problem.memories, strict=True) if f.nbytes]
    return Load(total, -1, (), f"the loads of what must lie in each memory: {', '.join(used)}")


def load_of_all(problem: Problem) -> Load:
    """The largest sum of sizes alive at one instant, over all memories together."""
    return _load_in(problem, groups_of(problem), None)


def load_in(problem: Problem, memory: int) -> Load:
    """The bound on the peak of one memory, from the buffers that must lie in it (all of them, if it is the only one)."""
    return _load_in(problem, groups_of(problem), memory if len(problem.memories) > 1 else None)


def overfull_rows(instance: Instance, limit: int) -> tuple[int, ...]:
    """Rows of an Instance that cannot fit ``limit`` together, from its load or a pin alone; () where those say nothing."""
    if load_of(instance) <= limit:
        return ()
    pinned = np.flatnonzero((instance.fixed >= 0) & (instance.fixed + instance.size > limit))
    if len(pinned):
        return (int(pinned[0]),)
    lower, upper, _ = sections(instance.piece_lower, instance.piece_upper)
    loads = profile(instance)[0]
    at = int(np.argmax(loads))
    if loads[at] <= limit:
        at = _with_padding(instance, None, limit)[1]
    row = np.repeat(np.arange(len(instance)), np.diff(instance.start))
    height = instance.piece_high - instance.piece_low
    alive = np.flatnonzero((lower <= at) & (at < upper))
    if loads[at] > limit:
        alive = alive[np.argsort(-height[alive], kind="stable")]
        alive = alive[: int(np.searchsorted(np.cumsum(height[alive]), limit, side="right")) + 1]
    return tuple(np.unique(row[alive]).tolist())


def irreducible(problem: Problem, found: Load, capacity: int) -> tuple[int, ...]:
    """Buffers out of a bound above ``capacity`` whose own bound is above it, and no longer without any one of them.

    Largest first until the bound is above the capacity, then each is left out in turn where the rest still is. Cost:
    O(k log k) for k buffers, times k where in-place or must-alias pairs are among them.
    """
    rows = sorted(found.buffers, key=lambda b: (-int(problem.size[b]), b))
    inside = set(rows)
    tied = any(a in inside and b in inside for a, b in (*problem.same, *problem.in_place)) or bool(problem.pieces)

    def needs(chosen: list[int]) -> int:
        buffers = np.array(sorted(chosen), dtype=np.int64)
        if tied:
            return load(restrict(problem, buffers)).nbytes
        sizes = problem.size[buffers]
        rounded = reduce.round_up(sizes, int(np.gcd.reduce(problem.alignment[buffers])))
        return int(rounded.sum() - (rounded - sizes).max(initial=0))

    if len(rows) <= 1 or needs(rows) <= capacity:
        return tuple(sorted(rows))
    few, many = 0, len(rows)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if needs(rows[:middle]) > capacity else (middle, many)
    kept = rows[:many]
    for buffer in reversed(rows[: many - 1]) if not tied or many <= _TIED else ():
        rest = [b for b in kept if b != buffer]
        if needs(rest) > capacity:
            kept = rest
    return tuple(sorted(kept))


def _load_in(problem: Problem, groups: Groups, memory: int | None) -> Load:
    """The bound from the buffers forced into ``memory``; from all, whatever their memory, if it is None."""
    rows = np.arange(len(groups)) if memory is None else np.flatnonzero(groups.memory == memory)
    instance = whole_instance(problem, groups, rows.astype(np.int64))
    if not len(instance):
        return Load(0, -1, (), "there are no buffers")
    loads, full = profile(instance)
    loads = loads - _savings(problem, groups, rows, instance, loads)
    at = int(np.argmax(loads))
    least, rounded = int(loads[at]), ""
    if memory is not None or len(problem.memories) == 1:
        least, higher = _with_padding(instance, lambda i, sums: _savings(problem, groups, rows, i, sums), least)
        at, rounded = (at, "") if higher < 0 else (higher, ", sizes rounded up to the alignment")
    instant = int(full[at])
    alive = [m for r in rows for m in groups.members[r] if _alive(problem, m, instant)]
    why = f"the load: {len(alive)} buffers alive at instant {instant}{rounded}"
    found = Load(least, instant, tuple(sorted(alive)), why)
    if memory is None and len(problem.memories) > 1:
        return found
    ends = np.where(instance.fixed >= 0, instance.fixed + instance.size, 0)
    top = int(np.argmax(ends))
    if ends[top] > found.nbytes:
        buffer = max(groups.members[rows[top]], key=lambda m: int(problem.size[m]))
        why = f"the fixed offset of buffer {problem.ids[buffer]}, which ends at byte {int(ends[top])}"
        return Load(int(ends[top]), int(problem.lower[buffer]), (buffer,), why)
    return found


def _alive(problem: Problem, buffer: int, instant: int) -> bool:
    return any(p.lower <= instant < p.upper for p in problem.pieces_of(buffer))


def _savings(problem: Problem, groups: Groups, rows: Ints, instance: Instance, loads: Ints) -> Ints:
    """For each section, bytes that in-place pairs may save at most."""
    saved = np.zeros(len(loads), dtype=np.int64)
    row_of = np.full(len(groups), -1, dtype=np.int64)
    row_of[rows] = np.arange(len(rows))
    pairs = {(int(row_of[groups.group[a]]), int(row_of[groups.group[b]])) for a, b in problem.in_place}
    pairs = {(a, b) for a, b in pairs if a != b and a >= 0 and b >= 0}
    if not pairs:
        return saved
    lower, upper, _ = sections(instance.piece_lower, instance.piece_upper)
    height = instance.piece_high - instance.piece_low
    at: dict[int, set[tuple[int, int]]] = {}
    spans = [(a, b, p, q) for a, b in sorted(pairs) for p in _pieces(instance, a) for q in _pieces(instance, b)]
    spans = [s for s in spans if lower[s[2]] < upper[s[3]] and lower[s[3]] < upper[s[2]]]
    shared = [(max(int(lower[p]), int(lower[q])), min(int(upper[p]), int(upper[q]))) for _, _, p, q in spans]
    if sum(end - begin for begin, end in shared) > _INSTANTS:
        for (_, _, p, q), (begin, end) in zip(spans, shared, strict=True):
            saved[begin:end] += min(height[p], height[q])
        return np.minimum(saved, loads)
    for (a, b, _, _), (begin, end) in zip(spans, shared, strict=True):
        for section in range(begin, end):
            at.setdefault(section, set()).add((a, b))
    memory: dict[frozenset[tuple[int, int]], int] = {}
    for section, alive in at.items():
        used = {r: [p for p in _pieces(instance, r) if lower[p] <= section < upper[p]] for pair in alive for r in pair}
        sizes = {r: sum(int(height[p]) for p in pieces) for r, pieces in used.items()}
        begins = {r: int(instance.piece_low[p[0]]) if len(p) == 1 else None for r, p in used.items()}
        key = frozenset(alive) if len(sizes) == sum(1 for r in sizes if len(_pieces(instance, r)) == 1) else None
        if key is None or key not in memory:
            saving = sum(sizes.values()) - _least_cover(sizes, begins, alive)
            if key is not None:
                memory[key] = saving
        else:
            saving = memory[key]
        saved[section] = saving
    return saved


def _pieces(instance: Instance, row: int) -> range:
    return range(int(instance.start[row]), int(instance.start[row + 1]))


def _least_cover(sizes: dict[int, int], begins: dict[int, int | None], pairs: set[tuple[int, int]]) -> int:
    """A lower bound on the bytes of buffers of which only paired ones may share theirs; exact in small components.

    ``begins``: the first byte in use of each buffer, None where several windows of it are in use at once.
    """
    links: dict[int, set[int]] = {r: set() for r in sizes}
    for a, b in pairs:
        links[a].add(b)
        links[b].add(a)
    total, seen = 0, set[int]()
    for start in sorted(sizes):
        if start in seen:
            continue
        component, todo = {start}, [start]
        while todo:
            new = links[todo.pop()] - component
            component |= new
            todo.extend(new)
        seen |= component
        nodes = sorted(component, key=lambda r: (-sizes[r], r))
        first = begins[nodes[0]]
        if len(nodes) <= _EXACT and first is not None and all(begins[r] == first for r in nodes):
            total += _cover(tuple(nodes), sizes, links, {})
            continue
        chosen: set[int] = set()
        for node in nodes:
            if not links[node] & chosen:
                chosen.add(node)
        total += sum(sizes[r] for r in chosen)
    return total


def _cover(
    nodes: tuple[int, ...], sizes: dict[int, int], links: dict[int, set[int]], known: dict[tuple[int, ...], int]
) -> int:
    """Least sum over a partition of ``nodes``, largest first, into sets of mutually paired ones, of each set's largest."""
    if not nodes:
        return 0
    if nodes not in known:
        first, rest = nodes[0], nodes[1:]
        friends = [r for r in rest if r in links[first]]
        best = None
        for mask in range(1 << len(friends)):
            joined = {f for i, f in enumerate(friends) if mask >> i & 1}
            if all(b in links[a] for a in joined for b in joined if a < b):
                cost = _cover(tuple(r for r in rest if r not in joined), sizes, links, known)
                best = cost if best is None else min(best, cost)
        known[nodes] = sizes[first] + (best or 0)
    return known[nodes]
