"""One line of addresses for all weights, in order of first use, cut into chunks of one size.

    weights     [ embed    )[q   )[k   )[v   )[norm)[up          )...        each starts at a multiple of 64 bytes
    chunks      |    0    |    1    |    2    |    3    |    4    |          2 MiB each; neighbours in use share one

All chunks being equally large, which of them stay is the classical paging problem, whatever the sizes of the weights; a
weight may be there in part; and nothing is lost to fragmentation but the last chunk's end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from memfit.units import align

ALIGNMENT = 64
"""Bytes: as PyTorch's own allocator aligns, so that kernels take the same path."""
LARGEST_CHUNK = 1 << 21
"""Bytes: a huge page."""
SMALLEST_CHUNK = 1 << 14
MOST_CHUNKS = 1 << 14
"""Chunks of one line: the kernel keeps an entry for each piece of address space with its own protection."""
CHUNKS_IN_BUDGET = 256


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a weight in a chunk: ``nbytes`` from ``offset`` of file number ``file`` go to ``begin`` in the chunk."""

    file: int
    offset: int
    begin: int
    nbytes: int


@dataclass(frozen=True)
class WeightLayout:
    """Where each weight lies on the line. ``begin``: bytes; ``sources``: (file, offset in it) of each; ``nbytes``: of each."""

    names: tuple[str, ...]
    begin: tuple[int, ...]
    nbytes: tuple[int, ...]
    sources: tuple[tuple[int, int], ...]
    chunk_bytes: int
    _solid: tuple[int, ...] = field(init=False, repr=False)
    _starts: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Remember which weights have bytes at all."""
        solid = tuple(i for i, nbytes in enumerate(self.nbytes) if nbytes)
        object.__setattr__(self, "_solid", solid)
        object.__setattr__(self, "_starts", tuple(self.begin[i] for i in solid))

    @property
    def length(self) -> int:
        """Bytes of the line."""
        return max((b + n for b, n in zip(self.begin, self.nbytes, strict=True)), default=0)

    @property
    def chunks(self) -> int:
        """Chunks of the line."""
        return -(-self.length // self.chunk_bytes)

    def chunks_of(self, weight: int) -> range:
        """The chunks that hold bytes of a weight."""
        if not self.nbytes[weight]:
            return range(0)
        begin = self.begin[weight]
        return range(begin // self.chunk_bytes, (begin + self.nbytes[weight] - 1) // self.chunk_bytes + 1)

    def access(self, weights: Sequence[int]) -> list[int]:
        """The chunks of several weights, each once, in order."""
        return sorted({chunk for weight in weights for chunk in self.chunks_of(weight)})

    def pieces(self, chunk: int) -> list[Piece]:
        """What to read to fill a chunk."""
        low, high = chunk * self.chunk_bytes, (chunk + 1) * self.chunk_bytes
        found = []
        for i in self._solid[max(0, bisect_right(self._starts, low) - 1) : bisect_left(self._starts, high)]:
            begin, end = max(low, self.begin[i]), min(high, self.begin[i] + self.nbytes[i])
            if begin < end:
                file, offset = self.sources[i]
                found.append(Piece(file, offset + begin - self.begin[i], begin - low, end - begin))
        return found


def lay_out(
    names: Sequence[str], nbytes: Sequence[int], sources: Sequence[tuple[int, int]], chunk_bytes: int
) -> WeightLayout:
    """Weights one after the other, in the order given."""
    begin, reached = [], 0
    for size in nbytes:
        begin.append(reached)
        reached = align(reached + size, ALIGNMENT)
    return WeightLayout(tuple(names), tuple(begin), tuple(nbytes), tuple(sources), chunk_bytes)


def chunk_bytes_for(budget: int, total: int) -> int:
    """Bytes of a chunk: a huge page where the budget holds many, less for small budgets, more for very long lines."""
    chunk = LARGEST_CHUNK
    while chunk > SMALLEST_CHUNK and budget // chunk < CHUNKS_IN_BUDGET:
        chunk //= 2
    while total // chunk > MOST_CHUNKS:
        chunk *= 2
    return chunk
