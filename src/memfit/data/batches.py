"""Make one batch: the rows of some positions of an epoch, from wherever the access says, into a slot of the ring."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.access import Access
from memfit.data.batch_ring import Slot
from memfit.data.dataset import Dataset
from memfit.data.order import Order
from memfit.data.page_cache import Behind
from memfit.data.staging import DirectColumn, Staged, runs_of, staging_memory
from memfit.data.transforms import Fused

Runs = tuple[NDArray[np.int64], NDArray[np.int64]]


class BatchMaker:
    """Fills batches. Safe to call from several threads, each with its own slot."""

    def __init__(self, data: Dataset, plans: dict[str, Fused | None], access: Access, batch: int) -> None:
        self.data, self.plans, self.access, self.batch = data, plans, access, batch
        self.direct: dict[str, DirectColumn] = {}
        if access.way == "direct":
            self.direct = {n: DirectColumn(data.file(n), data.describe(n).item_bytes) for n in access.large}
        self.pooled = access.way == "direct" and access.open < 1 << 40
        self._pools: dict[tuple[int, int], dict[str, Staged]] = {}
        self._spare: list[dict[str, NDArray[np.uint8]]] = []
        self._lock = threading.Lock()
        self._local = threading.local()
        self._behind: dict[str, Behind] = {}

    def fill(self, order: Order, start: int, stop: int, slot: Slot) -> dict[str, Any]:
        """The batch of positions [start, stop): arrays over the slot, lists for ragged columns.

        Raises:
            DataError: a file was cut short or cannot be read.
        """
        rows = order.at(start, stop - start)
        made: dict[str, Any] = {}
        pool = self._pool_parts(order, start, stop) if self.pooled else []
        for name, fused in self.plans.items():
            if fused is None:
                made[name] = self._ragged(name, rows)
                continue
            recipe = fused.recipe
            target = slot.bytes_of(name, len(rows) * recipe.made_bytes)
            if name not in self.direct:
                file = self.data.file(name)
                file.check_size()
                recipe.run(file.bytes, rows * recipe.row_bytes, target)
            elif self.pooled:
                for first, last, staged in pool:
                    part = target[first * recipe.made_bytes : last * recipe.made_bytes]
                    recipe.run(staged[name].memory, staged[name].offsets(rows[first:last]), part)
            else:
                staged_rows = self.direct[name].read(*runs_of(rows), self._own_memory(name))
                recipe.run(staged_rows.memory, staged_rows.offsets(rows), target)
            array: Any = target.view(recipe.made_dtype).reshape(len(rows), *recipe.shape)
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

    def _pool_parts(self, order: Order, start: int, stop: int) -> list[tuple[int, int, dict[str, Staged]]]:
        """The batch cut where pools meet: (first, last) within the batch, and where their rows are."""
        size = order.chunk * order.open
        last_pool = max(0, -(-(order.rows // order.chunk) // order.open) - 1)
        parts = []
        at = start
        while at < stop:
            pool = min(at // size, last_pool)
            end = stop if pool == last_pool else min(stop, (pool + 1) * size)
            parts.append((at - start, end - start, self._pool(order, pool, last_pool)))
            at = end
        return parts

    def _pool(self, order: Order, pool: int, last_pool: int) -> dict[str, Staged]:
        """A pool, read if it is not there; at most two are held, the one before and this."""
        key = (order.epoch, pool)
        with self._lock:
            if key in self._pools:
                return self._pools[key]
            size = order.chunk * order.open
            start = pool * size
            rows = order.rows - start if pool == last_pool else size
            runs = runs_of(order.at(start, rows))
            while len(self._pools) >= 2:
                oldest = next(iter(self._pools))
                self._spare.append({name: staged.memory for name, staged in self._pools.pop(oldest).items()})
            memory = self._spare.pop() if self._spare else {}
            staged = {}
            for name, column in self.direct.items():
                needed = column.bytes_for(len(runs[0]), rows)
                room = memory.get(name)
                if room is None or len(room) < needed:
                    room = staging_memory(max(needed, column.bytes_for(order.open + 2, min(size, order.rows))))
                staged[name] = column.read(*runs, room)
            self._pools[key] = staged
            return staged


Deliver = Callable[[dict[str, Any]], Any]
