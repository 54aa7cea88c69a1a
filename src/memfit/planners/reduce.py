"""Problem -> Instances that the kernels place, and offsets back. Every step keeps exactly the set of peaks possible.

    Problem  --group-->  one row for all buffers at one offset (must-alias classes, in-place pairs that are used),
                         its pieces the union of theirs, as disjoint rectangles
             --split-->  components in time: no row is alive across a cut, so each part is placed alone
             --compress> instants -> sections: runs of births ended by a death; two pieces meet in a section exactly
                         where they met in time
             --divide->  bytes by the largest unit that divides every window and pin, and divides or is divided by
                         every alignment

Why the division is exact: push every row of a placement down as far as the rows below it, the pins and its alignment
allow. Each offset is then a sum of window edges rounded up to alignments, hence a multiple of the unit, and no offset
rose.

Where every window begins at a multiple of what all alignments have in common, the bytes up to the next multiple are lost to
everyone; rounding sizes up to it makes a second form of the component, with a larger unit and often no alignments left.
Its placements are those of the component; a peak is smaller in bytes than in the rounded form by less than that
multiple, so an optimum of the rounded form is one of the component only where the bound says so.

In every Instance made here a row's ``size`` is the highest byte that it uses, so its end is ``offset + size``.
Cost: O(n log n).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from memfit.planners.problem import ANY_MEMORY, FREE_OFFSET, Instance, Ints, Problem


@dataclass(frozen=True)
class Part:
    """One component: ``instance`` in sections and units, ``rows`` of the whole Instance it holds, bytes of one ``unit``.

    ``rounded``: the same with sizes rounded up to multiples of its ``step``, where alignments make that nearly free.
    """

    instance: Instance
    rows: Ints
    unit: int
    step: int = 1
    rounded: Part | None = None


@dataclass(frozen=True)
class Groups:
    """Buffers that share one offset: ``group`` of each buffer, ``members`` of each group, and what binds a group."""

    group: Ints
    members: tuple[tuple[int, ...], ...]
    memory: Ints

    def __len__(self) -> int:
        return len(self.members)


def groups_of(problem: Problem, merged: Iterable[tuple[int, int]] = ()) -> Groups:
    """Groups of buffers at one offset: must-alias classes, joined further by the in-place pairs in ``merged``."""
    parent = list(range(len(problem)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in (*problem.same, *merged):
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    roots = np.array([root(i) for i in range(len(problem))], dtype=np.int64)
    _, group = np.unique(roots, return_inverse=True)
    group = group.astype(np.int64)
    members: list[list[int]] = [[] for _ in range(int(group.max(initial=-1)) + 1)]
    for buffer, index in enumerate(group.tolist()):
        members[index].append(buffer)
    memory = np.full(len(members), ANY_MEMORY, dtype=np.int64)
    np.maximum.at(memory, group, problem.memory)
    return Groups(group, tuple(tuple(m) for m in members), memory)


def whole_instance(problem: Problem, groups: Groups, rows: Ints | None = None, limit: int | None = None) -> Instance:
    """The Instance of some groups (all of them, left out), in the Problem's own instants and bytes, uncut.

    ``limit``: capacity in bytes, None for unbounded.
    """
    chosen = np.arange(len(groups), dtype=np.int64) if rows is None else rows
    leader = np.array([groups.members[g][0] for g in chosen], dtype=np.int64)
    odd = {i for i, g in enumerate(chosen) if len(groups.members[g]) > 1 or groups.members[g][0] in problem.pieces}
    lower, upper, size = problem.lower[leader], problem.upper[leader], problem.size[leader]
    alignment, fixed = problem.alignment[leader], problem.offset[leader]
    count = np.ones(len(chosen), dtype=np.int64)
    pieces: dict[int, list[tuple[int, int, int, int]]] = {}
    for i in odd:
        members = groups.members[chosen[i]]
        found = _union([(p.lower, p.upper, p.low, p.high) for m in members for p in problem.pieces_of(m)])
        pieces[i], count[i] = found, len(found)
        lower[i], upper[i] = min(p[0] for p in found), max(p[1] for p in found)
        size[i] = max(p[3] for p in found)
        alignment[i] = math.lcm(*(int(problem.alignment[m]) for m in members))
        fixed[i] = max(int(problem.offset[m]) for m in members)
    start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    columns = [np.repeat(c, count) for c in (lower, upper, np.zeros(len(chosen), dtype=np.int64), size)]
    for i, found in pieces.items():
        for column, values in zip(columns, zip(*found, strict=True), strict=True):
            column[start[i] : start[i + 1]] = values
    bound = -1 if limit is None else limit
    return Instance(
        lower, upper, size, alignment, fixed, start, columns[0], columns[1], columns[2], columns[3], bound
    )  # fmt: skip


def _union(rectangles: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Disjoint rectangles (lower, upper, low, high) that cover the same time x bytes, by lower, then low."""
    if len(rectangles) == 1:
        return rectangles
    events: dict[int, tuple[list[int], list[int]]] = {}
    for index, (lower, upper, _, _) in enumerate(rectangles):
        events.setdefault(lower, ([], []))[0].append(index)
        events.setdefault(upper, ([], []))[1].append(index)
    alive: set[int] = set()
    opened: dict[tuple[int, int], int] = {}
    out: list[tuple[int, int, int, int]] = []
    for time in sorted(events):
        alive |= set(events[time][0])
        alive -= set(events[time][1])
        windows: list[list[int]] = []
        for low, high in sorted(rectangles[i][2:] for i in alive):
            if windows and low <= windows[-1][1]:
                windows[-1][1] = max(windows[-1][1], high)
            else:
                windows.append([low, high])
        now = {(w[0], w[1]) for w in windows}
        for window in [w for w in opened if w not in now]:
            out.append((opened.pop(window), time, *window))
        for window in now:
            opened.setdefault(window, time)
    return sorted(out, key=lambda r: (r[0], r[2]))


def sections(lower: Ints, upper: Ints) -> tuple[Ints, Ints, Ints]:
    """Intervals in sections (see the module text), and the instant at which each section is full.

    Two intervals share a section exactly where they share an instant; no fewer sections do. Cost: O(n log n).
    """
    count = len(lower)
    if not count:
        return lower, upper, lower
    times = np.concatenate([upper, lower])
    birth = np.repeat(np.array([False, True]), count)
    order = np.lexsort((birth, times))
    births = birth[order]
    begins = births & ~np.concatenate([[False], births[:-1]])
    index = np.cumsum(begins) - 1
    section = np.empty(2 * count, dtype=np.int64)
    section[order] = index
    ends = np.flatnonzero(births & ~np.concatenate([births[1:], [False]]))
    return section[count:], section[:count] + 1, times[order][ends]


def split(instance: Instance) -> list[Part]:
    """The components of an Instance, compressed and divided; together they are the same Problem. Cost: O(n log n)."""
    order, begins = components(instance)
    ends = [*begins.tolist(), len(instance)]
    return [part_of(instance, np.sort(order[a:b])) for a, b in pairwise(ends)]


def components(instance: Instance) -> tuple[Ints, Ints]:
    """The rows by component, and where each component begins in them. Cost: O(n log n)."""
    count = len(instance)
    order = np.lexsort((np.arange(count), instance.lower))
    reach = np.maximum.accumulate(instance.upper[order])
    cut = np.concatenate([[True], instance.lower[order][1:] >= reach[:-1]]) if count else np.zeros(0, dtype=bool)
    return order, np.flatnonzero(cut)


def part_of(instance: Instance, rows: Ints) -> Part:
    """One component in sections and units."""
    count = np.diff(instance.start)[rows]
    start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    picked = np.repeat(instance.start[rows] - start[:-1], count) + np.arange(start[-1])
    lower, upper, _ = sections(instance.piece_lower[picked], instance.piece_upper[picked])
    low, high = instance.piece_low[picked], instance.piece_high[picked]
    fixed, size = instance.fixed[rows], instance.size[rows]
    pins = fixed[fixed >= 0]
    step = common_alignment(instance.alignment[rows], low)
    rounded = None
    if step > 1 and (high % step).any():
        larger = Instance(
            instance.lower[rows], instance.upper[rows], round_up(size, step), instance.alignment[rows], fixed, start,
            instance.piece_lower[picked], instance.piece_upper[picked], low, round_up(high, step), instance.limit,
        )  # fmt: skip
        form = part_of(larger, np.arange(len(rows), dtype=np.int64))
        rounded = Part(form.instance, rows, form.unit, step)
    unit, alignment = _unit(np.concatenate([low, high, pins]), instance.alignment[rows])
    limit = instance.limit // unit if instance.limit >= 0 else -1
    part = Instance(
        np.minimum.reduceat(lower, start[:-1]), np.maximum.reduceat(upper, start[:-1]), size // unit, alignment,
        np.where(fixed >= 0, fixed // unit, FREE_OFFSET), start, lower, upper, low // unit, high // unit, limit,
    )  # fmt: skip
    return Part(part, rows, unit, rounded=rounded)


def common_alignment(alignment: Ints, low: Ints) -> int:
    """What every offset is a multiple of, if every window begins at a multiple of it too; else 1."""
    step = int(np.gcd.reduce(alignment)) if len(alignment) else 1
    return step if step > 1 and not (low % step).any() else 1


def round_up(size: Ints, step: int) -> Ints:
    """Sizes rounded up to multiples of ``step``."""
    return -(-size // step) * step


def _unit(edges: Ints, alignment: Ints) -> tuple[int, Ints]:
    """The largest unit, and the alignments in units."""
    unit = int(np.gcd.reduce(edges)) or 1
    distinct = np.unique(alignment).tolist()
    while True:
        smaller = unit
        for value in distinct:
            if smaller % value and value % smaller:
                smaller = math.gcd(smaller, value)
        if smaller == unit:
            return unit, np.maximum(alignment // unit, 1)
        unit = smaller


def join(count: int, parts: Sequence[Part], offsets: Sequence[Ints]) -> Ints:
    """Offsets in bytes of the whole Instance's ``count`` rows from those of its parts, in units."""
    out = np.zeros(count, dtype=np.int64)
    for part, placed in zip(parts, offsets, strict=True):
        out[part.rows] = placed * part.unit
    return out


def highest(problem: Problem) -> Ints:
    """Bytes from each buffer's offset to the highest that it uses."""
    high = problem.size.copy()
    for buffer, pieces in problem.pieces.items():
        high[buffer] = max(piece.high for piece in pieces)
    return high


def restrict(problem: Problem, buffers: Ints, memory: int = 0) -> Problem:
    """The Problem of some of its buffers (ascending), in one of its memories."""
    row = {int(b): i for i, b in enumerate(buffers)}

    def kept(pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        return tuple((row[a], row[b]) for a, b in pairs if a in row and b in row)

    return Problem(
        tuple(problem.ids[b] for b in buffers), problem.lower[buffers], problem.upper[buffers], problem.size[buffers],
        problem.alignment[buffers], problem.offset[buffers], np.full(len(buffers), ANY_MEMORY, dtype=np.int64),
        {row[b]: pieces for b, pieces in problem.pieces.items() if b in row}, kept(problem.same),
        kept(problem.in_place), (problem.memories[memory],),
    )  # fmt: skip


def peak_of(instance: Instance, offset: Ints) -> int:
    """Highest byte in use."""
    return int((offset + instance.size).max(initial=0))
