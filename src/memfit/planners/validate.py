"""Whether a Problem can be planned at all, and why a Placement is not valid. Shares no code with any planner.

A Placement is judged by its rectangles alone: pieces of two buffers in one memory that are alive at one instant must
have disjoint bytes, unless the two are the same storage, or an in-place pair at one offset. Up to 300 pieces every
pair is looked at (brute force, O(n^2) in rows of NumPy); above that a sweep over time keeps the live pieces sorted by
offset, where a new piece can overlap its two neighbours only, O(n log n) with the exempt pieces compared one by one.
Tests run both.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from memfit.errors import CapacityError, ProblemError
from memfit.planners.problem import Ints, Placement, Problem
from memfit.units import format_bytes

_BRUTE = 300  # pieces up to which every pair is compared
_LARGEST = 2**62  # bytes: what the sum of all sizes, alignments and pins stays below, so that no offset overflows


def name_of(problem: Problem, buffer: int) -> str:
    """What a message calls a buffer: its id, and its label where it has one."""
    label = problem.labels[buffer] if problem.labels else ""
    return f"buffer {problem.ids[buffer]}" + (f" ({label})" if label and label != problem.ids[buffer] else "")


def why_invalid(problem: Problem, placement: Placement, *, brute: bool | None = None) -> str:
    """Why ``placement`` is no valid placement of ``problem``: the first breach found, or '' where there is none.

    Checks the number of entries, memories, negative offsets, pins, alignment, capacities, must-alias pairs, overlaps
    (in-place pairs may share one offset, and nothing less than one), and that the peak is the one it states.
    ``brute``: compare every pair (True) or sweep (False); left out, by size. Cost: see the module text.
    """
    offset, memory = np.asarray(placement.offset), np.asarray(placement.memory)
    if offset.shape != (len(problem),) or memory.shape != (len(problem),):
        return f"{len(offset)} offsets and {len(memory)} memories for {len(problem)} buffers"
    rows = _rectangles(problem, offset)
    breach = _breach_of_one(problem, offset, memory, rows)
    if breach:
        return breach
    for a, b in problem.same:
        if offset[a] != offset[b] or memory[a] != memory[b]:
            return f"{name_of(problem, a)} and {name_of(problem, b)} must lie at one offset"
    exempt = _exempt_pairs(problem, offset)
    compare = _overlap_brute if (len(rows[0]) <= _BRUTE if brute is None else brute) else _overlap_sweep
    pair = compare(rows, memory, exempt)
    if pair is not None:
        a, b = pair
        return (
            f"{name_of(problem, a)} at {int(offset[a])} and {name_of(problem, b)} at {int(offset[b])} "
            "are alive at one instant and share bytes"
        )
    peak = sum(_highest(rows, memory == index) for index in range(len(problem.memories)))
    if peak != placement.peak:
        return f"the stated peak is {placement.peak} bytes, the highest bytes in use are {peak}"
    if placement.bound > placement.peak:
        return f"the stated lower bound of {placement.bound} bytes is above the peak of {placement.peak}"
    return ""


_Rows = tuple[Ints, Ints, Ints, Ints, Ints]  # buffer, first instant, end, first byte, end


def _rectangles(problem: Problem, offset: Ints) -> _Rows:
    """Every piece at its place."""
    odd = np.array(sorted(problem.pieces), dtype=np.int64)
    whole = np.setdiff1d(np.arange(len(problem)), odd)
    rest = [(b, p.lower, p.upper, offset[b] + p.low, offset[b] + p.high) for b in odd for p in problem.pieces[int(b)]]
    extra = np.array(rest, dtype=np.int64).reshape(-1, 5)
    columns = (whole, problem.lower[whole], problem.upper[whole], offset[whole], offset[whole] + problem.size[whole])
    buffer, lower, upper, low, high = (np.concatenate([c, extra[:, i]]) for i, c in enumerate(columns))
    return buffer, lower, upper, low, high


def _highest(rows: _Rows, member: np.ndarray) -> int:  # type: ignore[type-arg]
    """Highest byte in use by the buffers of one memory."""
    return int(rows[4][member[rows[0]]].max(initial=0))


def _breach_of_one(problem: Problem, offset: Ints, memory: Ints, rows: _Rows) -> str:
    """The first rule about a single buffer that does not hold."""
    wrong = np.flatnonzero((memory < 0) | (memory >= len(problem.memories)))
    if len(wrong):
        return f"{name_of(problem, wrong[0])} lies in memory {int(memory[wrong[0]])}, which there is not"
    for mask, why in (
        ((problem.memory >= 0) & (memory != problem.memory), "lies in a memory that it does not allow"),
        (offset < 0, "has a negative offset"),
        ((problem.offset >= 0) & (offset != problem.offset), "does not lie at its fixed offset"),
        (offset % problem.alignment != 0, "is not aligned"),
    ):
        bad = np.flatnonzero(mask)
        if len(bad):
            first = bad[0]
            return (
                f"{name_of(problem, first)} at offset {int(offset[first])} {why} (fixed {int(problem.offset[first])}, "
                f"alignment {int(problem.alignment[first])}, memory {problem.memories[memory[first]].name})"
            )
    for index, room in enumerate(problem.memories):
        used = _highest(rows, memory == index)
        if room.capacity is not None and used > room.capacity:
            return f"memory {room.name} holds {room.capacity} bytes, the highest byte in use is {used}"
    return ""


def _exempt_pairs(problem: Problem, offset: Ints) -> dict[int, set[int]]:
    """Buffers that may overlap: members of one must-alias class, and in-place pairs that share their offset."""
    exempt: dict[int, set[int]] = {}
    for group in _classes(problem.same):
        for a in group:
            exempt.setdefault(a, set()).update(group - {a})
    for a, b in problem.in_place:
        if offset[a] == offset[b]:
            exempt.setdefault(a, set()).add(b)
            exempt.setdefault(b, set()).add(a)
    return exempt


def _classes(pairs: Iterable[tuple[int, int]]) -> list[set[int]]:
    """Buffers connected by pairs, by walking the pairs as a graph."""
    links: dict[int, set[int]] = {}
    for a, b in pairs:
        links.setdefault(a, set()).add(b)
        links.setdefault(b, set()).add(a)
    found: list[set[int]] = []
    seen: set[int] = set()
    for start in links:
        if start in seen:
            continue
        group, todo = {start}, [start]
        while todo:
            new = links[todo.pop()] - group
            group |= new
            todo.extend(new)
        seen |= group
        found.append(group)
    return found


def _overlap_brute(rows: _Rows, memory: Ints, exempt: dict[int, set[int]]) -> tuple[int, int] | None:
    """Two buffers that overlap, by looking at every pair of pieces."""
    buffer, lower, upper, low, high = rows
    home = memory[buffer]
    for i in range(len(buffer)):
        later = slice(i + 1, None)
        clash = (lower[later] < upper[i]) & (lower[i] < upper[later]) & (home[later] == home[i])
        clash &= (low[later] < high[i]) & (low[i] < high[later]) & (buffer[later] != buffer[i])
        allowed = exempt.get(int(buffer[i]), ())
        for j in np.flatnonzero(clash):
            other = int(buffer[i + 1 + j])
            if other not in allowed:
                return int(buffer[i]), other
    return None


def _overlap_sweep(rows: _Rows, memory: Ints, exempt: dict[int, set[int]]) -> tuple[int, int] | None:
    """Two buffers that overlap, by a sweep over time: see the module text."""
    count = len(rows[0])
    order = np.lexsort((np.repeat([0, 1], count), np.concatenate([rows[2], rows[1]])))  # deaths before births
    buffer, _, _, low, high = (column.tolist() for column in rows)
    home = memory[rows[0]].tolist()
    alive: dict[int, list[int]] = {m: [] for m in set(home)}  # first bytes of the live pieces that are not exempt
    piece_at: dict[int, dict[int, int]] = {m: {} for m in alive}
    special: dict[int, set[int]] = {m: set() for m in alive}
    for event in order.tolist():
        i = event % count
        row, piece, others = alive[home[i]], piece_at[home[i]], special[home[i]]
        first, end = low[i], high[i]
        if event < count:
            if buffer[i] in exempt:
                others.discard(i)
            else:
                del row[bisect_left(row, first)]
            continue
        at = bisect_left(row, first)
        near = [piece[row[at - 1]]] if at and high[piece[row[at - 1]]] > first else []
        while at < len(row) and row[at] < end:
            near.append(piece[row[at]])
            at += 1
        near += [j for j in others if low[j] < end and first < high[j]]
        allowed = exempt.get(buffer[i], ())
        for j in near:
            if buffer[j] != buffer[i] and buffer[j] not in allowed:
                return buffer[i], buffer[j]
        if buffer[i] in exempt:
            others.add(i)
        else:
            row.insert(at, first)
            piece[first] = i
    return None


def check_problem(problem: Problem) -> None:
    """Refuse a Problem that cannot be planned, before any search.

    Raises:
        ProblemError: columns of different lengths, a size that is not positive, a reversed lifetime, a piece outside
            its buffer, an unknown memory, a bad alignment or pin, pins that overlap, pairs that contradict each other,
            or sizes whose sum leaves 62 bits.
        CapacityError: a buffer (or a pin's end) alone is above the capacity of every memory that it allows.
    Cost: O(n log n).
    """
    _check_columns(problem)
    _check_pieces(problem)
    _check_pairs(problem)
    bound = _spread(problem)
    _check_fit(bound)
    _check_pins(bound)


def _refuse_where(problem: Problem, mask: np.ndarray, why: str, hint: str, values: Ints) -> None:  # type: ignore[type-arg]
    """ProblemError for the first buffer in ``mask``."""
    bad = np.flatnonzero(mask)
    if len(bad):
        more = f" ({len(bad)} buffers in all)" if len(bad) > 1 else ""
        raise ProblemError(name_of(problem, int(bad[0])), f"{why.format(int(values[bad[0]]))}{more}", hint)


def _check_columns(problem: Problem) -> None:
    """Lengths, sizes, lifetimes, alignments, memories: one column at a time."""
    for name in ("lower", "upper", "size", "alignment", "offset", "memory"):
        column = getattr(problem, name)
        if len(column) != len(problem):
            raise ProblemError("the problem", f"{len(column)} entries of {name} for {len(problem)} buffers")
    if not problem.memories:
        raise ProblemError("the problem", "it has no memory", "name at least one")
    if len(set(problem.ids)) != len(problem.ids):
        seen: set[str] = set()
        twice = next(i for i, name in enumerate(problem.ids) if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ProblemError(name_of(problem, twice), "its id is used twice", "give every buffer an id of its own")
    sizes, count = problem.size, len(problem.memories)
    _refuse_where(problem, sizes <= 0, "its size is {} bytes", "sizes are positive", sizes)
    length = np.where(problem.upper > problem.lower, 1, 0)
    _refuse_where(
        problem, length < 1, "its lifetime ends before it begins, or is empty (begins at {})",
        "lifetimes are half-open: [lower, upper) with lower < upper", problem.lower,
    )  # fmt: skip
    _refuse_where(problem, problem.alignment < 1, "its alignment is {}", "alignments are positive", problem.alignment)
    _refuse_where(
        problem, (problem.memory < -1) | (problem.memory >= count), "it must lie in memory {}, which there is not",
        f"there are {count}: " + ", ".join(m.name for m in problem.memories), problem.memory,
    )  # fmt: skip
    total = sum(sizes.tolist()) + sum(problem.alignment.tolist()) + max(problem.offset.tolist(), default=0)
    if total >= _LARGEST:
        raise ProblemError(
            "the problem", f"sizes, alignments and pins sum to {total} bytes, more than {_LARGEST}",
            "count in larger units, such as kibibytes",
        )  # fmt: skip
    for memory in problem.memories:
        if memory.capacity is not None and memory.capacity <= 0:
            raise ProblemError(
                f"memory {memory.name}", f"its capacity is {memory.capacity} bytes", "give a positive one"
            )
    if problem.expected is not None and len(problem.expected) != len(problem):
        raise ProblemError("the problem", f"{len(problem.expected)} expected sizes for {len(problem)} buffers")
    if problem.labels and len(problem.labels) != len(problem):
        raise ProblemError("the problem", f"{len(problem.labels)} labels for {len(problem)} buffers")


def _check_pieces(problem: Problem) -> None:
    """Pieces lie inside their buffer, in time order."""
    for buffer, pieces in problem.pieces.items():
        if not 0 <= buffer < len(problem):
            raise ProblemError("the problem", f"it has pieces of buffer number {buffer}, of {len(problem)}")
        where, size = name_of(problem, buffer), int(problem.size[buffer])
        if not pieces:
            raise ProblemError(where, "it is never in use: its gaps leave nothing", "leave the buffer out")
        last = int(problem.lower[buffer])
        for piece in pieces:
            span = f"[{piece.lower}, {piece.upper})"
            if not piece.lower < piece.upper:
                raise ProblemError(where, f"its piece {span} is empty or reversed")
            if piece.lower < last or piece.upper > int(problem.upper[buffer]):
                raise ProblemError(where, f"its piece {span} leaves its lifetime or meets the piece before it")
            if not 0 <= piece.low < piece.high <= size:
                raise ProblemError(
                    where, f"the window [{piece.low}, {piece.high}) of {span} is not within its {size} bytes"
                )
            last = piece.upper


def _check_pairs(problem: Problem) -> None:
    """Pairs name two buffers, and must-alias classes and in-place chains do not contradict themselves."""
    for kind, pairs in (("must-alias", problem.same), ("in-place", problem.in_place)):
        for a, b in pairs:
            if not (0 <= a < len(problem) and 0 <= b < len(problem)):
                raise ProblemError("the problem", f"{kind} pair ({a}, {b}) names a buffer that there is not")
            if a == b:
                raise ProblemError(
                    name_of(problem, a),
                    f"an {kind} pair names it twice" if kind == "in-place" else f"a {kind} pair names it twice",
                )
    for group in _classes(problem.same):
        members = sorted(group)
        for column, what in ((problem.offset, "fixed offsets"), (problem.memory, "memories")):
            given = sorted({int(column[m]) for m in members} - {-1})
            if len(given) > 1:
                raise ProblemError(
                    " and ".join(name_of(problem, m) for m in members[:4]),
                    f"they must lie at one offset, yet have the {what} {', '.join(map(str, given[:4]))}",
                )  # fmt: skip
        if math.lcm(*(int(problem.alignment[m]) for m in members)) >= _LARGEST:
            raise ProblemError(
                name_of(problem, members[0]), "the alignments of what it aliases have no common multiple"
            )
    after: dict[int, set[int]] = {}
    for a, b in problem.in_place:
        after.setdefault(a, set()).add(b)
    cycle = _cycle(after)
    if cycle:
        raise ProblemError(
            ", ".join(name_of(problem, b) for b in cycle[:4]), "in-place pairs form a cycle: each overwrites the next",
            "an in-place pair (a, b) means that b takes over the bytes of a",
        )  # fmt: skip


def _spread(problem: Problem) -> Problem:
    """The Problem with every must-alias class' pin, memory and alignment in each of its members."""
    offset, memory, alignment = problem.offset.copy(), problem.memory.copy(), problem.alignment.copy()
    for group in _classes(problem.same):
        members = sorted(group)
        offset[members], memory[members] = offset[members].max(), memory[members].max()
        alignment[members] = math.lcm(*alignment[members].tolist())
    return replace(problem, offset=offset, memory=memory, alignment=alignment)


def _cycle(after: dict[int, set[int]]) -> list[int]:
    """What is left of a graph when nodes without predecessors are taken away again and again."""
    nodes = set(after) | {b for targets in after.values() for b in targets}
    before = dict.fromkeys(nodes, 0)
    for targets in after.values():
        for b in targets:
            before[b] += 1
    ready = [n for n in nodes if not before[n]]
    while ready:
        node = ready.pop()
        nodes.discard(node)
        for b in after.get(node, ()):
            before[b] -= 1
            if not before[b]:
                ready.append(b)
    return sorted(nodes)


def _check_fit(problem: Problem) -> None:
    """Every buffer alone fits one of the memories that it allows."""
    if not len(problem):
        return
    needed = problem.size.copy()
    for buffer, pieces in problem.pieces.items():
        needed[buffer] = max(piece.high for piece in pieces)
    needed += np.maximum(problem.offset, 0)
    rooms = np.array([_LARGEST if m.capacity is None else m.capacity for m in problem.memories], dtype=np.int64)
    room = np.where(problem.memory >= 0, rooms[problem.memory], rooms.max())
    bad = np.flatnonzero(needed > room)
    if len(bad):
        worst = int(bad[np.argmax((needed - room)[bad])])
        raise CapacityError(int(room[worst]), int(needed[worst]), (problem.ids[worst],), name_of(problem, worst))


def _check_pins(problem: Problem) -> None:
    """Pins are aligned, and those that must share a memory do not overlap."""
    pinned = np.flatnonzero(problem.offset >= 0)
    _refuse_where(problem, problem.offset < -1, "its fixed offset is {}", "offsets are not negative", problem.offset)
    for buffer in pinned[problem.offset[pinned] % problem.alignment[pinned] != 0]:
        raise ProblemError(
            name_of(problem, int(buffer)),
            f"its fixed offset {int(problem.offset[buffer])} is no multiple of its alignment {int(problem.alignment[buffer])}",
        )
    rows = _rectangles(problem, problem.offset)
    memory = problem.memory if len(problem.memories) > 1 else np.zeros(len(problem), dtype=np.int64)
    keep = np.isin(rows[0], pinned[memory[pinned] >= 0])
    kept = (rows[0][keep], rows[1][keep], rows[2][keep], rows[3][keep], rows[4][keep])
    compare = _overlap_brute if len(kept[0]) <= _BRUTE else _overlap_sweep
    pair = compare(kept, memory, _exempt_pairs(problem, problem.offset))
    if pair is not None:
        a, b = (name_of(problem, x) for x in pair)
        at = [f"at {int(problem.offset[x])} ({format_bytes(int(problem.size[x]))})" for x in pair]
        raise ProblemError(f"{a} and {b}", f"both are fixed, {at[0]} and {at[1]}, and overlap while both are alive")
