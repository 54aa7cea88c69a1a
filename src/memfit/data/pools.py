"""Pools of chunks read past the page cache for a block shuffle: two at most, the next one read while this one is used.

    pool 0 |== used ==|
    pool 1 |-- read --|== used ==|              memory of pool 0 is used again for pool 2
    pool 2            |-- read --|== used ==|

With several ranks each reads, of a pool, only the rows of its own batches: neighbours less than 16 KiB apart in one
piece, as a further piece costs about what 16 KiB cost. So the ranks together read about what one alone would, where rows
are not much shorter than that; chunks are read whole where it would not be less.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memfit.data.order import Order
from memfit.data.staging import DirectColumn, Staged, runs_of, staging_memory

_POOLS = 2
_GAP_BYTES = 16 << 10


@dataclass(frozen=True)
class Share:
    """Which positions of an epoch are this rank's: of each global batch from ``origin`` on the ``rank``-th part."""

    batch: int
    rank: int = 0
    ranks: int = 1
    origin: int = 0

    def positions(self, start: int, stop: int, rows: int) -> NDArray[np.int64]:
        """This rank's positions in [start, stop); of a short last batch of an epoch of ``rows`` all."""
        at = np.arange(start, stop, dtype=np.int64)
        if self.ranks == 1:
            return at
        whole = self.batch * self.ranks
        tail = self.origin + max(0, rows - self.origin) // whole * whole
        mine = (at - self.origin) // self.batch % self.ranks == self.rank
        found: NDArray[np.int64] = at[(at >= self.origin) & (mine | (at >= tail))]
        return found


@dataclass(frozen=True)
class _Key:
    order: Order
    pool: int
    share: Share


@dataclass
class _Pool:
    """A pool in memory, or on its way there (None), and how many threads use it now."""

    staged: dict[str, Staged] | None = None
    users: int = 1


class Pools:
    """The pools of a loader. Safe to call from several threads. ``ahead``: whether a thread reads the next one."""

    def __init__(self, columns: dict[str, DirectColumn], ahead: bool) -> None:
        self.columns = columns
        self._held: dict[_Key, _Pool] = {}
        self._spare: list[dict[str, NDArray[np.uint8]]] = []
        self._changed = threading.Condition()
        self._reader = ThreadPoolExecutor(1, "memfit-pools") if ahead else None
        self._asked: _Key | None = None

    def parts(self, order: Order, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The positions [start, stop) as (pool, first, last)."""
        while start < stop:
            pool = pool_of(order, start)
            end = min(stop, pool_end(order, pool))
            yield pool, start, end
            start = end

    @contextlib.contextmanager
    def use(self, order: Order, pool: int, share: Share) -> Iterator[dict[str, Staged]]:
        """A pool, read if it is not there; one that somebody uses is not given up.

        Raises:
            DataError: the disk fails, or the file was cut short.
        """
        key = _Key(order, pool, share)
        held = self._take(key)
        try:
            assert held.staged is not None, "taken pools have been read"
            yield held.staged
        finally:
            self._leave(held)

    def passed(self, order: Order, position: int, share: Share) -> None:
        """The consumer has all batches before ``position``: what they were made of may go, the next pool may come."""
        key = _Key(order, pool_of(order, position) + 1, share)
        if self._reader is None or key == self._asked or pool_end(order, key.pool - 1) >= order.rows:
            return
        self._asked = key
        self._reader.submit(self._read_ahead, key)

    def close(self) -> None:
        """End the thread that reads ahead."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
            self._reader = None

    def _read_ahead(self, key: _Key) -> None:
        with self._changed:
            now = _Key(key.order, key.pool - 1, key.share)
            if key in self._held or (len(self._held) >= _POOLS and not self._give_up_idle(now)):
                return
        self._leave(self._take(key))

    def _take(self, key: _Key) -> _Pool:
        with self._changed:
            while (held := self._held.get(key)) is None or held.staged is None:
                if held is None and (len(self._held) < _POOLS or self._give_up_idle()):
                    break
                self._changed.wait()
            else:
                held.users += 1
                return held
            made = self._held[key] = _Pool()
            memory = self._spare.pop() if self._spare else {}
        try:
            staged = self._read(key, memory)
        except BaseException:
            with self._changed:
                del self._held[key]
                self._changed.notify_all()
            raise
        with self._changed:
            made.staged = staged
            self._changed.notify_all()
        return made

    def _leave(self, held: _Pool) -> None:
        with self._changed:
            held.users -= 1
            self._changed.notify_all()

    def _give_up_idle(self, but: _Key | None = None) -> bool:
        """Make the memory of the oldest pool that nobody uses free for another; False where there is none."""
        for key, held in self._held.items():
            if held.users == 0 and held.staged is not None and key != but:
                del self._held[key]
                self._spare.append({name: staged.memory for name, staged in held.staged.items()})
                return True
        return False

    def _read(self, key: _Key, memory: dict[str, NDArray[np.uint8]]) -> dict[str, Staged]:
        order, start = key.order, key.pool * key.order.chunk * key.order.open
        stop = pool_end(order, key.pool)
        rows = order.at(start, stop - start)
        mine = rows[key.share.positions(start, stop, order.rows) - start] if key.share.ranks > 1 else rows
        staged = {}
        for name, column in self.columns.items():
            most = column.bytes_for(order.open + 2, max(len(rows), min(order.pool_rows, order.rows)))
            starts, stops = runs_of(mine, _GAP_BYTES // column.row_bytes if key.share.ranks > 1 else 0)
            needed = column.bytes_for(len(starts), int((stops - starts).sum()))
            if needed > most:
                starts, stops = runs_of(rows)
                needed = column.bytes_for(len(starts), len(rows))
            room = memory.get(name)
            if room is None or len(room) < needed:
                # A part of a pool varies from pool to pool by little.
                room = staging_memory(max(needed, min(most, needed + needed // 16) if key.share.ranks > 1 else most))
            staged[name] = column.read(starts, stops, room)
        return staged


def pool_of(order: Order, position: int) -> int:
    """The pool in which a position lies."""
    last = max(0, -(-(order.rows // order.chunk) // order.open) - 1)
    return min(position // (order.chunk * order.open), last)


def pool_end(order: Order, pool: int) -> int:
    """The first position behind a pool."""
    end = (pool + 1) * order.chunk * order.open
    return order.rows if pool_of(order, end) <= pool else min(end, order.rows)
