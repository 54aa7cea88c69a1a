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
from memfit.data.gather import Recipe
from memfit.data.order import Order
from memfit.data.ordered_reads import OrderedColumn
from memfit.data.pools import Pools, Share
from memfit.data.staging import DirectColumn, runs_of, staging_memory
from memfit.data.transforms import Fused


class BatchMaker:
    """Fills batches. Safe to call from several threads, each with its own slot."""

    def __init__(
        self, data: Dataset, plans: dict[str, Fused | None], access: Access, batch: int, read_ahead: bool
    ) -> None:
        self.data, self.plans, self.access, self.batch = data, plans, access, batch
        self.direct: dict[str, DirectColumn] = {}
        if access.way == "direct":
            self.direct = {n: DirectColumn(data.file(n), data.describe(n).item_bytes) for n in access.large}
        pooled = access.way == "direct" and access.open < 1 << 40
        self.pools = Pools(self.direct, read_ahead) if pooled else None
        self._local = threading.local()
        self.ordered: dict[str, OrderedColumn] = {}
        if access.way == "sequential":
            fixed = [n for n in access.large if plans[n] is not None]
            self.ordered = {n: OrderedColumn(data.file(n), data.describe(n).item_bytes) for n in fixed}

    def fill(self, order: Order, start: int, stop: int, share: Share, slot: Slot) -> dict[str, Any]:
        """The batch of positions [start, stop): arrays over the slot, lists for ragged columns.

        Raises:
            DataError: a file was cut short or cannot be read.
        """
        rows = order.at(start, stop - start)
        target = {
            name: slot.bytes_of(name, len(rows) * fused.recipe.made_bytes)
            for name, fused in self.plans.items() if fused is not None
        }  # fmt: skip
        if self.pools is not None:
            self._fill_from_pools(self.pools, order, start, stop, share, rows, target)
        made: dict[str, Any] = {}
        for name, fused in self.plans.items():
            if fused is None:
                made[name] = self._ragged(name, rows)
                continue
            recipe = fused.recipe
            if name in self.ordered:
                self.ordered[name].fill(int(rows[0]), int(rows[0]) + len(rows), recipe, target[name])
            elif name not in self.direct:
                file = self.data.file(name)
                file.check_size()
                recipe.run(file.bytes, rows * recipe.row_bytes, target[name])
            elif self.pools is None:
                staged = self.direct[name].read(*runs_of(rows), self._own_memory(name))
                recipe.run(staged.memory, staged.offsets(rows), target[name])
            array: Any = target[name].view(recipe.made_dtype).reshape(len(rows), *recipe.shape)
            for step in fused.after:
                array = step(array)
            made[name] = array
        return made

    def passed(self, order: Order, position: int, share: Share) -> None:
        """The consumer has left the rows before ``position`` behind: the next pool is read."""
        if self.pools is not None:
            self.pools.passed(order, position, share)

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
        self, pools: Pools, order: Order, start: int, stop: int, share: Share, rows: NDArray[np.int64],
        target: dict[str, NDArray[np.uint8]],
    ) -> None:  # fmt: skip
        """The columns that are read directly, a pool at a time: no thread holds a pool while it waits for another."""
        for pool, begin, end in pools.parts(order, start, stop):
            first, last = begin - start, end - start
            with pools.use(order, pool, share) as staged:
                for name, rows_there in staged.items():
                    recipe = self._recipe(name)
                    part = target[name][first * recipe.made_bytes : last * recipe.made_bytes]
                    recipe.run(rows_there.memory, rows_there.offsets(rows[first:last]), part)

    def _recipe(self, name: str) -> Recipe:
        fused = self.plans[name]
        assert fused is not None, "a ragged column is never read directly"
        return fused.recipe

    def close(self) -> None:
        """End what reads ahead."""
        if self.pools is not None:
            self.pools.close()


Deliver = Callable[[dict[str, Any], frozenset[str]], Any]
"""Takes a batch and which of its columns are bits of bfloat16."""
