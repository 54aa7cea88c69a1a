"""Make one batch: the rows of some positions of an epoch, from wherever the access says, into a slot of the ring."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.access import Access
from memfit.data.batch_ring import Slot
from memfit.data.dataset import Dataset
from memfit.data.gather import Recipe
from memfit.data.order import Order
from memfit.data.page_cache import Behind
from memfit.data.staging import DirectColumn, Staged, runs_of, staging_memory
from memfit.data.transforms import Fused

_POOLS = 2


class BatchMaker:
    """Fills batches. Safe to call from several threads, each with its own slot."""

    def __init__(self, data: Dataset, plans: dict[str, Fused | None], access: Access, batch: int) -> None:
        self.data, self.plans, self.access, self.batch = data, plans, access, batch
        self.direct: dict[str, DirectColumn] = {}
        if access.way == "direct":
            self.direct = {n: DirectColumn(data.file(n), data.describe(n).item_bytes) for n in access.large}
        self.pooled = access.way == "direct" and access.open < 1 << 40
        self._pools: dict[tuple[int, int], _Pool] = {}
        self._spare: list[dict[str, NDArray[np.uint8]]] = []
        self._changed = threading.Condition()
        self._local = threading.local()
        self._behind: dict[str, Behind] = {}

    def fill(self, order: Order, start: int, stop: int, slot: Slot) -> dict[str, Any]:
        """The batch of positions [start, stop): arrays over the slot, lists for ragged columns.

        Raises:
            DataError: a file was cut short or cannot be read.
        """
        rows = order.at(start, stop - start)
        target = {
            name: slot.bytes_of(name, len(rows) * fused.recipe.made_bytes)
            for name, fused in self.plans.items() if fused is not None
        }  # fmt: skip
        if self.pooled:
            self._fill_from_pools(order, start, stop, rows, target)
        made: dict[str, Any] = {}
        for name, fused in self.plans.items():
            if fused is None:
                made[name] = self._ragged(name, rows)
                continue
            recipe = fused.recipe
            if name not in self.direct:
                file = self.data.file(name)
                file.check_size()
                recipe.run(file.bytes, rows * recipe.row_bytes, target[name])
            elif not self.pooled:
                staged = self.direct[name].read(*runs_of(rows), self._own_memory(name))
                recipe.run(staged.memory, staged.offsets(rows), target[name])
            array: Any = target[name].view(recipe.made_dtype).reshape(len(rows), *recipe.shape)
            for step in fused.after:
                array = step(array)
            made[name] = array
        return made

    def passed(self, position: int) -> None:
        """In sequential access: the reader has left the rows before ``position`` behind."""
        if self.access.way != "sequential":
            return
        for name in self.access.large:
            if self.data.describe(name).ragged:
                continue
            if position == 0 or name not in self._behind:
                self._behind[name] = Behind(self.data.file(name))
            self._behind[name].passed(position * self.data.describe(name).item_bytes)

    def _ragged(self, name: str, rows: NDArray[np.int64]) -> list[Any]:
        text = self.data.describe(name).meaning == "text"
        values = [self.data.row(name, int(row)) for row in rows]
        return [v.tobytes().decode("utf-8", "replace") for v in values] if text else [np.array(v) for v in values]

    def _own_memory(self, name: str) -> NDArray[np.uint8]:
        """This thread's memory for the rows of one batch."""
        held: dict[str, NDArray[np.uint8]] = self._local.__dict__.setdefault("memory", {})
        if name not in held:
            held[name] = staging_memory(self.direct[name].bytes_for(self.batch, self.batch))
        return held[name]

    def _fill_from_pools(
        self, order: Order, start: int, stop: int, rows: NDArray[np.int64], target: dict[str, NDArray[np.uint8]]
    ) -> None:
        """The columns that are read directly, a pool at a time: no thread holds a pool while it waits for another."""
        size = order.chunk * order.open
        last_pool = max(0, -(-(order.rows // order.chunk) // order.open) - 1)
        at = start
        while at < stop:
            pool = min(at // size, last_pool)
            end = stop if pool == last_pool else min(stop, (pool + 1) * size)
            first, last = at - start, end - start
            with self._pool(order, pool, last_pool) as staged:
                for name, rows_there in staged.items():
                    recipe = self._recipe(name)
                    part = target[name][first * recipe.made_bytes : last * recipe.made_bytes]
                    recipe.run(rows_there.memory, rows_there.offsets(rows[first:last]), part)
            at = end

    def _recipe(self, name: str) -> Recipe:
        fused = self.plans[name]
        assert fused is not None, "a ragged column is never read directly"
        return fused.recipe

    @contextlib.contextmanager
    def _pool(self, order: Order, pool: int, last_pool: int) -> Iterator[dict[str, Staged]]:
        """A pool, read if it is not there. At most two are held, and one that somebody reads from is not given up."""
        key = (order.epoch, pool)
        with self._changed:
            while (held := self._pools.get(key)) is None:
                if len(self._pools) >= _POOLS and not self._give_up_idle():
                    self._changed.wait()
                    continue
                held = self._pools[key] = _Pool(self._read(order, pool, last_pool))
            held.users += 1
        try:
            yield held.staged
        finally:
            with self._changed:
                held.users -= 1
                self._changed.notify_all()

    def _give_up_idle(self) -> bool:
        """Make the memory of the oldest pool that nobody reads from free for another; False where there is none."""
        for key, held in self._pools.items():
            if held.users == 0:
                del self._pools[key]
                self._spare.append({name: staged.memory for name, staged in held.staged.items()})
                return True
        return False

    def _read(self, order: Order, pool: int, last_pool: int) -> dict[str, Staged]:
        size = order.chunk * order.open
        start = pool * size
        rows = order.rows - start if pool == last_pool else size
        runs = runs_of(order.at(start, rows))
        memory = self._spare.pop() if self._spare else {}
        staged = {}
        for name, column in self.direct.items():
            needed = column.bytes_for(len(runs[0]), rows)
            room = memory.get(name)
            if room is None or len(room) < needed:
                room = staging_memory(max(needed, column.bytes_for(order.open + 2, min(size, order.rows))))
            staged[name] = column.read(*runs, room)
        return staged


@dataclass
class _Pool:
    """A pool in memory, and how many threads read from it now."""

    staged: dict[str, Staged]
    users: int = 0


Deliver = Callable[[dict[str, Any]], Any]
