"""The slow twin of the exact search: an oracle for small problems, written for being obviously right.

Whole buffers (pins, alignment and gaps allowed): depth first over canonical solutions. A solution in which no buffer
can drop has every unpinned buffer at the lowest offset that those below allow, so placing the buffers in some order of
rising offsets (ties by number), each at its lowest allowed offset, meets it. No bound but the limit: exponential.

Buffers with windows: every multiple of the common divisor is tried for every buffer.

The native search (``native/core/placement_search.h``) branches in another way; both must agree on what fits.
"""

from __future__ import annotations

import math

import numpy as np

from memfit.planners.problem import Instance, Ints

_Piece = tuple[int, int, int, int]


def pieces_of(instance: Instance, buffer: int) -> list[_Piece]:
    """(lower, upper, low, high) of each piece of a buffer."""
    rows = range(int(instance.start[buffer]), int(instance.start[buffer + 1]))
    columns = (instance.piece_lower, instance.piece_upper, instance.piece_low, instance.piece_high)
    return [(int(columns[0][p]), int(columns[1][p]), int(columns[2][p]), int(columns[3][p])) for p in rows]


def clash(one: list[_Piece], at: int, other: list[_Piece], there: int) -> bool:
    """Whether two buffers at offsets ``at`` and ``there`` use a common byte at a common instant."""
    return any(
        max(a[0], b[0]) < min(a[1], b[1]) and max(at + a[2], there + b[2]) < min(at + a[3], there + b[3])
        for a in one
        for b in other
    )


def why_invalid(instance: Instance, offset: Ints, limit: int) -> str:
    """What is wrong with a placement, or ''. Brute force over all pairs."""
    pieces = [pieces_of(instance, i) for i in range(len(instance))]
    for i in range(len(instance)):
        at = int(offset[i])
        if at < 0 or (at % int(instance.alignment[i]) and int(instance.fixed[i]) < 0):
            return f"buffer {i} lies at {at}"
        if int(instance.fixed[i]) >= 0 and at != int(instance.fixed[i]):
            return f"buffer {i} is pinned to {int(instance.fixed[i])} and lies at {at}"
        if max(at + piece[3] for piece in pieces[i]) > limit:
            return f"buffer {i} ends above {limit}"
        for j in range(i):
            if clash(pieces[i], at, pieces[j], int(offset[j])):
                return f"buffers {i} and {j} overlap"
    return ""


def _unit(instance: Instance) -> int:
    figures = [*instance.size, *instance.piece_low, *instance.piece_high, *instance.fixed[instance.fixed >= 0]]
    return math.gcd(*(int(figure) for figure in [*figures, *instance.alignment[instance.alignment > 1]])) or 1


def place(instance: Instance, limit: int) -> Ints | None:
    """Offsets in bytes below ``limit``, or None where there are none. Exponential time; for up to about 7 buffers."""
    count, unit = len(instance), _unit(instance)
    pieces = [pieces_of(instance, i) for i in range(count)]
    offset = np.where(instance.fixed >= 0, instance.fixed, -1).astype(np.int64)
    pinned = [i for i in range(count) if offset[i] >= 0]
    whole = all(piece[2:] == (0, int(instance.size[i])) for i in range(count) for piece in pieces[i])
    top = [max(piece[3] for piece in own) for own in pieces]
    placed = list(pinned)

    def fits(i: int, at: int) -> bool:
        return at + top[i] <= limit and not any(clash(pieces[i], at, pieces[j], int(offset[j])) for j in placed)

    for position, i in enumerate(pinned):
        if offset[i] + top[i] > limit:
            return None
        if any(clash(pieces[i], int(offset[i]), pieces[j], int(offset[j])) for j in pinned[:position]):
            return None

    def candidates(i: int, last: tuple[int, int]) -> list[int]:
        step = math.lcm(unit, int(instance.alignment[i])) if instance.alignment[i] > 1 else unit
        fitting = (at for at in range(0, limit - top[i] + 1, step) if fits(i, at))
        if not whole:
            return list(fitting)
        lowest = next(fitting, -1)
        return [lowest] if (lowest, i) > last else []

    def search(last: tuple[int, int]) -> bool:
        free = [i for i in range(count) if offset[i] < 0]
        if not free:
            return True
        for i in free if whole else free[:1]:
            for at in candidates(i, last):
                offset[i] = at
                placed.append(i)
                if search((at, i)):
                    return True
                placed.pop()
                offset[i] = -1
        return False

    return offset if search((-1, -1)) else None


def minimise(instance: Instance) -> tuple[Ints, int]:
    """Offsets of least peak and that peak in bytes, by trying every limit from 0 upwards."""
    limit, unit = 0, _unit(instance)
    while (offset := place(instance, limit)) is None:
        limit += unit
    return offset, limit
