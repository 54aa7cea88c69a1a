"""Windows of a long row of tokens as (x, y), y one token further: each token once an epoch, in a shuffled order.

    tokens   | skipped | window 0 | window 1 | ...     windows begin at a place that moves with the epoch
    memory   [batch, window + 1] int64                 one gather; x and y are two views of it, nothing is copied

What comes at which step is a function of (seed, epoch, step, rank, ranks), as of a ``Loader``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memfit import _core
from memfit.data.batch_ring import Ring
from memfit.data.dataset import Dataset
from memfit.data.gather import ELEMENTS
from memfit.data.order import Order, part_of
from memfit.errors import DataError

_WIDE = ELEMENTS.index("i8")
_STEPS = 64

Pair = tuple[NDArray[np.int64], NDArray[np.int64]]


class TokenLoader:
    """Iterates over one epoch of windows, as pairs of int64 arrays [batch, window].

    Args:
        dataset: a ``Dataset``, or the folder of one, with a column of tokens.
        window: tokens of an x, 1 or more.
        batch: windows of a batch on this rank.
        column: the column of tokens.
        seed, rank, ranks, last: as of a ``Loader``.

    Raises:
        DataError: no such column, or fewer tokens than a window.
    """

    def __init__(
        self, dataset: Dataset | str | Path, window: int, batch: int, *, column: str = "tokens", seed: int = 0, rank: int = 0,
        ranks: int = 1, last: str = "drop", shuffle: bool = True,
    ) -> None:  # fmt: skip
        self.dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
        described, where = self.dataset.describe(column), str(self.dataset.folder)
        self._file = self.dataset.file(column)
        if described.shape or described.ragged or described.dtype not in ("u1", "u2", "u4", "i4", "i8"):
            raise DataError(where, f"column {column!r} holds no single row of tokens")
        if window < 1 or batch < 1 or seed < 0 or not 0 <= rank < ranks or last not in ("keep", "drop", "pad"):
            raise DataError(where, f"window={window}, batch={batch}, rank={rank} of {ranks}, last={last!r} cannot be")
        if len(self.dataset) < 2 * window:
            raise DataError(where, f"its {len(self.dataset)} tokens are fewer than two windows of {window}")
        self.window, self.batch, self.rank, self.ranks, self.last = window, batch, rank, ranks, last
        self._shuffle, self._seed, self._epoch, self._position = shuffle, seed, 0, 0
        self._item, self._element = described.item_bytes, ELEMENTS.index(described.dtype)
        self.windows = (len(self.dataset) - window) // window
        self._ring = Ring({"tokens": batch * (window + 1) * 8}, 2)

    def __len__(self) -> int:
        whole = self.batch * self.ranks
        return self.windows // whole if self.last == "drop" else -(-self.windows // whole)

    def state_dict(self) -> dict[str, int]:
        """Where the consumer is."""
        return {"seed": self._seed, "epoch": self._epoch, "row": self._position, "order": self._fingerprint()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on after the batch at which ``state_dict`` was taken.

        Raises:
            DataError: it is of other data or other windows.
        """
        try:
            seed, epoch, row, order = (int(state[key]) for key in ("seed", "epoch", "row", "order"))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(str(self.dataset.folder), f"{state!r} is no state of a loader") from error
        if order != self._fingerprint() or not 0 <= row <= self.windows:
            raise DataError(str(self.dataset.folder), "the state is of other data or of other windows")
        self._seed, self._epoch, self._position = seed, epoch, row

    def _fingerprint(self) -> int:
        return zlib.crc32(f"{self.dataset.schema.identity}:{self.window}:{self._shuffle}".encode())

    def _start(self, order: Order) -> int:
        """Tokens skipped at the beginning in this epoch."""
        return int(order.keys[-1] % np.uint64(self.window)) if self._shuffle else 0

    def __iter__(self) -> Iterator[Pair]:
        if self._position >= self.windows:
            self._epoch, self._position = self._epoch + 1, 0
        order = Order(self.windows, self._seed, self._epoch, 1 if self._shuffle else 0)
        skip, stride = self._start(order) * self._item, self.window * self._item
        while self._position < self.windows:
            offsets = self._places(order)
            offsets *= stride
            offsets += skip
            for part in offsets:
                yield self._pair(part)
            if not len(offsets):
                start, stop, after = part_of(self._position, self.windows, self.batch, self.rank, self.ranks, self.last)
                if stop > start:
                    yield self._pair(order.at(start, stop - start) * stride + skip, after)
                self._position = after
        self._epoch, self._position = self._epoch + 1, 0

    def _places(self, order: Order) -> NDArray[np.int64]:
        """Windows of this rank's next whole batches, [step, batch], a few steps at once: a call costs more than its rows."""
        whole = self.batch * self.ranks
        steps = min(_STEPS, (self.windows - self._position) // whole)
        if self.ranks == 1:
            return order.at(self._position, steps * whole).reshape(steps, whole)
        starts = self._position + self.rank * self.batch + np.arange(steps, dtype=np.int64) * whole
        parts = [order.at(int(start), self.batch) for start in starts]
        return np.array(parts, np.int64).reshape(steps, self.batch)

    def _pair(self, offsets: NDArray[np.int64], after: int | None = None) -> Pair:
        """The windows at ``offsets`` (bytes) in a slot that nobody holds; the consumer is then at ``after``."""
        self._file.check_size()
        width = self.window + 1
        slot = self._ring.take()
        values = slot.shaped("tokens", "i8", width)
        if after is not None:
            values = values[: len(offsets)]
        _core.gather_rows(self._file.bytes, offsets, self._element, _WIDE, 0, width, 1, None, None, slot.memory, False)
        self._position = self._position + self.batch * self.ranks if after is None else after
        return values[:, :-1], values[:, 1:]
