"""Batches of a data set: shuffled, fused on their way, ahead of the consumer, within a stated memory.

    with memfit.data.Loader("photos.set", 64, {"image": [normalize(), channels("first")]}, shuffle=True) as loader: ...

What comes when is a function of (seed, epoch, position) alone (``order``), so that a loader goes on from ``state_dict()``
at the very row, in another process, with another number of ranks or another batch size. Threads of the loader make whole
batches each, without a lock between them and without Python's; they are delivered in order. Memory: the ring of batch
buffers, and what the access needs (``memory``); a batch's arrays may be kept, their buffer is then not used again.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from memfit.data.access import Access, choose_access
from memfit.data.batch_ring import Ring
from memfit.data.batches import BatchMaker, Deliver
from memfit.data.dataset import Dataset
from memfit.data.order import Order, distinct_share, part_of
from memfit.data.pools import Share
from memfit.data.transforms import After, Fused, Transform, fuse
from memfit.errors import DataError
from memfit.units import parse_bytes

Steps = Sequence[Transform | After]


class Loader:
    """Iterates over one epoch; the next iteration is the next epoch.

    Args:
        dataset: a ``Dataset``, or the folder of one.
        batch: rows of a batch on this rank, 1 or more.
        transform: steps by column, or one list for every column that is no label, token or text.
        columns: which columns, in which order; all where left out.
        shuffle: False, True (rows freely where they can be, else in blocks), or an integer: rows that stay together.
        seed: of the order.
        memory_budget: bytes (or ``512MiB``) for buffers and page cache together; None: half of what is free.
        rank, ranks: which part of each global batch this process takes, of how many; None: what the output's framework says.
        last: the last global batch, where it is short: ``keep`` (shared), ``drop``, ``pad`` (rows once more).
        threads: that make batches ahead; 0: in the consumer's own.
        ahead: batches made ahead of the consumer.
        output: ``numpy``, or without a copy ``torch``, ``tensorflow``, ``jax`` (others take the arrays by DLPack).
        tuples: batches as tuples in the order of the columns, not dicts.
        access: ``auto``, or ``mapped``, ``sequential``, ``direct``.

    Raises:
        DataError: columns, steps or numbers that do not fit the data set.
        BudgetError: the budget does not hold the buffers.
    """

    def __init__(
        self, dataset: Dataset | str | Path, batch: int, transform: Mapping[str, Steps] | Steps = (), *,
        columns: Sequence[str] | None = None, shuffle: bool | int = False, seed: int = 0,
        memory_budget: int | str | None = None, rank: int | None = None, ranks: int | None = None, last: str = "keep",
        threads: int = 1, ahead: int = 2, output: str = "numpy", tuples: bool = False, access: str = "auto",
    ) -> None:  # fmt: skip
        self.dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
        data, where = self.dataset, str(self.dataset.folder)
        _check(where, batch=(batch, 1), threads=(threads, 0), ahead=(ahead, 1), seed=(seed, 0))
        if last not in ("keep", "drop", "pad"):
            raise DataError(where, f"the last batch cannot be {last!r}", hint="keep, drop or pad")
        if access not in ("auto", "mapped", "sequential", "direct"):
            raise DataError(where, f"there is no access {access!r}", hint="auto, mapped, sequential or direct")
        if access == "sequential" and shuffle:
            raise DataError(where, "sequential access cannot shuffle", hint="access='direct', or shuffle=False")
        self.batch, self.last, self.threads, self.ahead, self.tuples = batch, last, threads, ahead, tuples
        names = list(columns) if columns is not None else list(data.columns)
        self._plans = self._fuse(names, transform)
        self._brains = frozenset(
            n for n, plan in self._plans.items() if plan is not None and plan.recipe.target == "bf16"
        )
        self._deliver, placed, allocate = _output(output, where)
        self.rank, self.ranks = placed() if rank is None or ranks is None else (rank, ranks)
        if not 0 <= self.rank < self.ranks:
            raise DataError(where, f"there is no rank {self.rank} of {self.ranks}")
        parts = {n: batch * plan.recipe.made_bytes for n, plan in self._plans.items() if plan is not None}
        self._ring = Ring(parts, (ahead + 1) if threads else 2, allocate)  # one is the consumer's
        budget = None if memory_budget is None else parse_bytes(memory_budget)
        chunk = int(shuffle) if shuffle is not True and shuffle else None
        self.access: Access = choose_access(
            data, names, bool(shuffle), chunk, budget, self._ring.bytes, batch, threads, access
        )
        self._maker = BatchMaker(data, self._plans, self.access, batch, read_ahead=threads > 0)
        self._seed, self._epoch, self._position = seed, 0, 0
        self._threads: ThreadPoolExecutor | None = None

    def _fuse(self, names: list[str], transform: Mapping[str, Steps] | Steps) -> dict[str, Fused | None]:
        data, where = self.dataset, str(self.dataset.folder)
        given = transform if isinstance(transform, Mapping) else {
            n: transform for n in names if not data.describe(n).ragged and data.describe(n).meaning not in ("label", "tokens")
        }  # fmt: skip
        for name in given:
            if name not in names:
                raise DataError(
                    where, f"there are steps for {name!r}, which is not loaded", hint=f"loaded: {', '.join(names)}"
                )
        plans: dict[str, Fused | None] = {}
        for name in names:
            column = data.describe(name)
            if column.ragged:
                if given.get(name):
                    raise DataError(where, f"column {name!r} is ragged: steps need rows of one shape")
                plans[name] = None
            else:
                plans[name] = fuse(column, given.get(name, ()), data.schema.statistics.get(name), where)
        return plans

    @property
    def memory(self) -> dict[str, int]:
        """Projected bytes: ``ring`` and ``staging`` are private memory, ``cache`` is page cache."""
        return {"ring": self._ring.bytes, "staging": self.access.staging, "cache": self.access.cache}

    @property
    def randomness(self) -> float:
        """Distinct classes in a batch of class-sorted rows, against a full shuffle's (1.0), seen on 200 batches."""
        return distinct_share(self._order(self._epoch)) if len(self.dataset) else 1.0

    def __len__(self) -> int:
        whole = self.batch * self.ranks
        rows = len(self.dataset)
        return rows // whole if self.last == "drop" else -(-rows // whole)

    def _order(self, epoch: int) -> Order:
        return Order(len(self.dataset), self._seed, epoch, self.access.chunk, self.access.open)

    def set_epoch(self, epoch: int) -> None:
        """Start the next iteration at the beginning of ``epoch``."""
        self._epoch, self._position = int(epoch), 0

    def state_dict(self) -> dict[str, int]:
        """Where the consumer is: under 100 bytes as JSON. The same on every rank after the same batch."""
        return {"seed": self._seed, "epoch": self._epoch, "row": self._position, "order": self._fingerprint()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken: the next batch is the one after it.

        Raises:
            DataError: the state is of other data or of another shuffle.
        """
        where = str(self.dataset.folder)
        try:
            seed, epoch, row, order = (int(state[key]) for key in ("seed", "epoch", "row", "order"))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(where, f"{state!r} is no state of a loader") from error
        if order != self._fingerprint():
            hint = "shuffle by the same rows (shuffle=N fixes them whatever the budget)"
            raise DataError(where, "the state is of other data or of another shuffle", hint=hint)
        if not 0 <= row <= len(self.dataset):
            raise DataError(where, f"the state is at row {row} of {len(self.dataset)}")
        self._seed, self._epoch, self._position = seed, epoch, row

    def _fingerprint(self) -> int:
        return zlib.crc32(f"{self.dataset.schema.identity}:{self.access.chunk}:{self.access.open}".encode())

    def _pieces(self, position: int) -> Iterator[tuple[int, int, int]]:
        rows = len(self.dataset)
        while position < rows:
            start, stop, position = part_of(position, rows, self.batch, self.rank, self.ranks, self.last)
            yield start, stop, position

    def __iter__(self) -> Iterator[Any]:
        if self._position >= len(self.dataset) and len(self.dataset):
            self._epoch, self._position = self._epoch + 1, 0
        order = self._order(self._epoch)
        share = Share(self.batch, self.rank, self.ranks, self._position)
        pieces = self._pieces(self._position)
        yield from self._inline(order, share, pieces) if self.threads == 0 else self._ahead(order, share, pieces)
        self._epoch, self._position = self._epoch + 1, 0

    def _inline(self, order: Order, share: Share, pieces: Iterator[tuple[int, int, int]]) -> Iterator[Any]:
        for start, stop, after in pieces:
            made = self._maker.fill(order, start, stop, share, self._ring.take()) if stop > start else None
            yield from self._hand_over(made, after, order, share)

    def _ahead(self, order: Order, share: Share, pieces: Iterator[tuple[int, int, int]]) -> Iterator[Any]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.threads, "memfit-loader")
        waiting: deque[tuple[Future[dict[str, Any]] | None, int]] = deque()
        try:
            while True:
                while len(waiting) < self.ahead and (piece := next(pieces, None)) is not None:
                    start, stop, after = piece
                    slot = self._ring.take() if stop > start else None
                    fill = self._maker.fill
                    job = self._threads.submit(fill, order, start, stop, share, slot) if slot is not None else None
                    if slot is not None and job is not None:
                        # Until the batch is delivered its future holds the slot, so that nobody else takes it.
                        job.slot_memory = slot.bytes_of(next(iter(slot.parts)), 1) if slot.parts else None  # type: ignore[attr-defined]
                    waiting.append((job, after))
                if not waiting:
                    return
                job, after = waiting.popleft()
                made = job.result() if job is not None else None
                del job
                yield from self._hand_over(made, after, order, share)
        finally:
            for job, _ in waiting:
                if job is not None and not job.cancel():
                    job.exception()  # nobody writes into a slot after this

    def _hand_over(self, made: dict[str, Any] | None, after: int, order: Order, share: Share) -> Iterator[Any]:
        self._position = after
        self._maker.passed(order, max(share.origin, after - self.batch * self.ranks), share)
        if made is None:
            return
        batch = self._deliver(made, self._brains)
        made = None
        yield tuple(batch.values()) if self.tuples else batch

    def close(self) -> None:
        """End the threads. Batches that were handed out stay."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
        self._maker.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()


def _check(where: str, **numbers: tuple[int, int]) -> None:
    for name, (value, least) in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise DataError(where, f"{name}={value!r} is no whole number from {least} on")


def _output(name: str, where: str) -> tuple[Deliver, Callable[[], tuple[int, int]], Any]:
    """How batches are delivered, which rank this is, and who allocates buffers: of the plug-in for a framework."""
    if name == "numpy":
        return lambda batch, brains: batch, lambda: (0, 1), None
    # A framework's side is a plug-in found by name, as the layers forbid this one to know frameworks.
    found = {entry.name: entry for entry in entry_points(group="memfit.batch_outputs")}
    if name not in found:
        raise DataError(where, f"there is no output {name!r}", hint=f"known: numpy, {', '.join(sorted(found))}")
    output = found[name].load()()
    return output.deliver, output.placed, output.allocate
