"""Which row comes at which position: a pure function of (seed, epoch, position), with nothing stored.

    rows       | chunk 0 | chunk 1 | chunk 2 | ...                 rows that lie together on disk
    permuted   | chunk 7 | chunk 2 | chunk 9 | ...                 a Feistel permutation of the chunks
    pools      |<--- `open` chunks --->|<--- ...                   rows are permuted within a pool
    positions    0 1 2 3 ...

A *full* shuffle is one chunk per row in one pool. A *block* shuffle lets a bounded memory hold a pool at a time; its
randomness is stated as the share of distinct classes in a batch of class-sorted data, against a full shuffle
(``distinct_share``). The borders of the chunks move with the epoch, so that other rows lie together each time.

Ranks take turns: of each global batch rank r takes the r-th part. A saved position counts rows of the whole epoch, so it
means the same under another number of ranks or another batch size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memfit import _core

OPEN_CHUNKS = 1024
_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _split(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood 2014), elementwise."""
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Order:
    """The order of one epoch. ``chunk``: rows that stay together; ``open``: chunks mixed at a time; 0 chunk: as stored."""

    rows: int
    seed: int
    epoch: int
    chunk: int = 1
    open: int = 1 << 40

    @property
    def keys(self) -> NDArray[np.uint64]:
        """The keys of the permutations of chunks, then of rows."""
        mask = (1 << 64) - 1
        start = np.array([(self.seed * 0xD1342543DE82EF95 + self.epoch * 0xA24BAED4963EE407 + 1) & mask], np.uint64)
        steps: NDArray[np.uint64] = np.arange(1, 2 * _ROUNDS + 1, dtype=np.uint64)
        return _split(np.add(_split(start), steps, dtype=np.uint64))

    @property
    def rotation(self) -> int:
        """Rows by which the borders of chunks are moved in this epoch."""
        if self.chunk <= 1 or self.rows < 2:
            return 0
        return int(_split(self.keys[:1])[0] % np.uint64(self.rows))

    @property
    def pool_rows(self) -> int:
        """Rows of a whole pool: what has to be within reach at a time."""
        return min(self.rows, self.chunk * self.open)

    def at(self, start: int, count: int) -> NDArray[np.int64]:
        """The rows at positions [start, start + count). Cost: about 0.1 us a row."""
        if self.chunk == 0:
            return np.arange(start, start + count, dtype=np.int64)
        made = np.empty(count, np.int64)
        if count:
            _core.rows_at(self.rows, self.chunk, self.open, self.rotation, self.keys, start, made)
        return made

    def at_slowly(self, start: int, count: int) -> NDArray[np.int64]:
        """The twin of ``at``, row by row in Python."""
        if self.chunk == 0:
            return np.arange(start, start + count, dtype=np.int64)
        chunks = self.rows // self.chunk
        pools = max(1, -(-chunks // self.open))
        found = []
        for position in range(start, start + count):
            pool = min(position // (self.open * self.chunk), pools - 1)
            first = pool * self.open
            held = min(self.open, chunks - first)
            size = self.rows - first * self.chunk if pool == pools - 1 else self.open * self.chunk
            with np.errstate(over="ignore"):
                keys = [int(k) for k in _split(self.keys[_ROUNDS:] + np.uint64(pool))]
            inside = permuted(position - first * self.chunk, size, keys)
            if inside < held * self.chunk:
                chunk = permuted(first + inside // self.chunk, chunks, [int(k) for k in self.keys[:_ROUNDS]])
                row = chunk * self.chunk + inside % self.chunk
            else:
                row = chunks * self.chunk + inside - held * self.chunk
            found.append((row + self.rotation) % self.rows)
        return np.array(found, np.int64)


def permuted(value: int, n: int, keys: list[int]) -> int:
    """Where ``value`` of [0, n) goes: a Feistel network, walked until it lies below n (Black, Rogaway 2002)."""
    if n < 2:
        return 0
    mask = (1 << 64) - 1
    bits = (n - 1).bit_length()
    low_bits = bits // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << (bits - low_bits)) - 1

    def mixed(x: int, key: int) -> int:
        z = (x * int(_GOLDEN) + key) & mask
        z ^= z >> 32
        z = z * 0xD6E8FEB86659FD93 & mask
        return z ^ z >> 32

    while True:
        high, low = value >> low_bits, value & low_mask
        for turn in range(0, _ROUNDS, 2):
            high ^= mixed(low, keys[turn]) & high_mask
            low ^= mixed(high, keys[turn + 1]) & low_mask
        value = high << low_bits | low
        if value < n:
            return value


def distinct_share(order: Order, batch: int = 64, classes: int = 1000, batches: int = 200) -> float:
    """Distinct classes in a batch of class-sorted rows, as a share of what a full shuffle has (1.0), seen on some batches.

    Cost: O(batch * batches), 0.1 us a row.
    """
    rows = order.rows
    batch = min(batch, rows)
    classes = min(classes, rows)
    places = np.linspace(0, max(rows - batch, 0), min(batches, max(1, rows // batch)), dtype=np.int64)
    seen = [len(np.unique(order.at(int(start), batch) * classes // rows)) for start in places]
    full = classes * (1 - (1 - 1 / classes) ** batch)
    return float(np.mean(seen)) / full


def part_of(position: int, rows: int, batch: int, rank: int, ranks: int, last: str) -> tuple[int, int, int]:
    """The positions [start, stop) of ``rank`` in the global batch at ``position``, and where the next one starts.

    The last global batch may be short. ``last``: ``keep`` shares what is left among the ranks (some may get none),
    ``drop`` leaves it out, ``pad`` takes the missing rows from the end of the epoch's whole batches once more.
    """
    whole = batch * ranks
    left = rows - position
    if left >= whole:
        return position + rank * batch, position + (rank + 1) * batch, position + whole
    if last == "drop" or left <= 0:
        return rows, rows, rows
    if last == "pad":
        size = min(-(-left // ranks), rows)
        start = min(position + rank * size, rows - size)
        return start, start + size, rows
    return position + left * rank // ranks, position + left * (rank + 1) // ranks, rows
