"""Problem and Placement: buffers with known lifetimes, and where each of them lies.

Time runs in whole steps, bytes in whole bytes, both half-open. A buffer occupies a rectangle of time x bytes; where it
has **gaps** it is several **pieces** at one common offset, each with its own byte window inside the buffer::

    bytes                                    buffer 0: [0, 2) x [0, 64)
      96 +------+                            buffer 1: [0, 3), 32 bytes, on top of it
      64 |--1---+------+                     buffer 2: [2, 4), 64 bytes, takes over the bytes of buffer 0
         |  0   |  2   |
       0 +------+------+----> time           peak = 96, lower bound (load) = 96

Two buffers conflict where pieces of both are alive at one instant; then their bytes must be disjoint. Exceptions:
``same`` (must-alias) pairs lie at one offset and never conflict; an ``in_place`` pair (a, b) may lie at one offset, and
does not conflict if it does (b overwrites a where both are alive). A pinned buffer has its offset given. With several
memories, each buffer lies in one of those it allows, and buffers in different memories never conflict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

ANY_MEMORY = -1
FREE_OFFSET = -1


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory that buffers may lie in. ``capacity``: bytes, or None for unbounded. Earlier memories are preferred."""

    name: str
    capacity: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Instants [lower, upper) in which the buffer's bytes [low, high), counted from its offset, are in use."""

    lower: int
    upper: int
    low: int
    high: int


@dataclass(frozen=True)
class Problem:
    """Buffers to place; columns of one entry a buffer. See the module text.

    ``lower``/``upper``: first instant, and first instant no longer needed. ``size``: bytes (> 0), the upper bound where
    the shape is dynamic. ``alignment``: the offset is a multiple of it (>= 1). ``offset``: pin in bytes, or -1.
    ``memory``: index into ``memories`` where the buffer must lie, or -1 for any. ``pieces``: only of the buffers that
    have gaps or windows (buffer index -> pieces, in time order); all others are one piece. ``expected``: bytes usually
    used of a dynamic buffer (reported, never planned with). ``labels``: what a person calls the buffer, or ''.
    """

    ids: tuple[str, ...]
    lower: Ints
    upper: Ints
    size: Ints
    alignment: Ints
    offset: Ints
    memory: Ints
    pieces: dict[int, tuple[Piece, ...]] = field(default_factory=dict)
    same: tuple[tuple[int, int], ...] = ()
    in_place: tuple[tuple[int, int], ...] = ()
    memories: tuple[Memory, ...] = (Memory("memory"),)
    expected: Ints | None = None
    labels: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def capacity(self) -> int | None:
        """Bytes of the only memory, or None where it is unbounded or there are several."""
        return self.memories[0].capacity if len(self.memories) == 1 else None

    def pieces_of(self, buffer: int) -> tuple[Piece, ...]:
        """The pieces of a buffer, in time order."""
        whole = Piece(int(self.lower[buffer]), int(self.upper[buffer]), 0, int(self.size[buffer]))
        return self.pieces.get(buffer, (whole,))


def simple_problem(
    lower: npt.ArrayLike, upper: npt.ArrayLike, size: npt.ArrayLike, *, alignment: int = 1, capacity: int | None = None,
    ids: tuple[str, ...] | None = None,
) -> Problem:  # fmt: skip
    """A Problem of plain rectangles in one memory: lifetimes [lower, upper) in instants, sizes in bytes."""
    sizes = np.asarray(size, dtype=np.int64)
    count = len(sizes)
    return Problem(
        ids if ids is not None else tuple(str(i) for i in range(count)),
        np.asarray(lower, dtype=np.int64), np.asarray(upper, dtype=np.int64), sizes,
        np.full(count, alignment, dtype=np.int64), np.full(count, FREE_OFFSET, dtype=np.int64),
        np.full(count, ANY_MEMORY, dtype=np.int64), memories=(Memory("memory", capacity),),
    )  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """Where every buffer lies: ``offset`` in bytes and ``memory`` index, one entry a buffer of the Problem.

    ``strategy``: which planner found it. ``peak``: highest byte in use, summed over memories. ``bound``: a proved lower
    bound on any placement's peak (at least the load). ``optimal``: peak == bound. ``seconds``: CPU time it took.
    """

    strategy: str
    offset: Ints
    memory: Ints
    peak: int
    bound: int
    seconds: float = 0.0

    @property
    def optimal(self) -> bool:
        """Whether nothing lower exists."""
        return self.peak == self.bound

    @property
    def gap(self) -> float:
        """How far above the proved bound: 0.0 at the optimum, 0.1 for 10 % above."""
        return self.peak / self.bound - 1.0 if self.bound else 0.0


@dataclass(frozen=True)
class Instance:
    """What the kernels see: one memory, no must-alias pairs, no in-place pairs, sizes divided by their common divisor.

    Pieces in compressed form: those of buffer ``i`` are ``start[i]:start[i + 1]`` of the ``piece_*`` columns.
    ``plain``: every buffer is one piece with its window [0, size). ``fixed``: pin, or -1. ``limit``: capacity, or -1.
    """

    lower: Ints
    upper: Ints
    size: Ints
    alignment: Ints
    fixed: Ints
    start: Ints
    piece_lower: Ints
    piece_upper: Ints
    piece_low: Ints
    piece_high: Ints
    limit: int = -1

    def __len__(self) -> int:
        return len(self.size)

    @property
    def plain(self) -> bool:
        """Whether every buffer is a whole rectangle, unpinned and aligned to 1: the case the fast paths take."""
        return bool(len(self.piece_lower) == len(self.size) and (self.fixed < 0).all() and (self.alignment == 1).all()
                    and (self.piece_low == 0).all() and (self.piece_high == self.size).all())  # fmt: skip


def plain_instance(lower: Ints, upper: Ints, size: Ints, limit: int = -1) -> Instance:
    """An Instance of whole rectangles."""
    count = len(size)
    return Instance(
        lower, upper, size, np.ones(count, np.int64), np.full(count, FREE_OFFSET, np.int64), np.arange(count + 1),
        lower, upper, np.zeros(count, np.int64), size, limit,
    )  # fmt: skip
