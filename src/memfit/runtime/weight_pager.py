"""Serves weights from files in frames of a fixed number: what is used next is read while what is used now computes.

    program    borrow w1 | compute w1 ........ | borrow w2 | compute w2 ....      waits only for what is not there yet
    reader        | read w2's missing chunks | read w3's missing chunks |         into frames whose chunks leave

One thread reads, in the order of use, as far ahead as frames are free. A frame becomes free when its chunk was used and
the schedule does not keep it (``weight_schedule``). Chunks that an operation uses, or that a view of a weight still shows,
stay. Where the program leaves the known order, what is needed is read at once into the frame used again last. Whatever the
order, never more than ``frames`` frames exist, and no weight is handed out before all of it is there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from memfit.errors import BudgetError, MemfitError
from memfit.ir.safetensors_header import StoredTensor
from memfit.runtime.page_frames import PageFrames
from memfit.runtime.weight_file import WeightFiles
from memfit.runtime.weight_layout import WeightLayout
from memfit.runtime.weight_order import UseOrder
from memfit.runtime.weight_schedule import WeightSchedule, schedule_weights

Access = tuple[int, ...]


@dataclass
class PagingCounts:
    """What happened so far, measured. Bytes count whole chunks.

    ``used``: bytes of chunks that accesses asked for, a chunk that the access before had too not counted again; ``read``:
    bytes of chunks read; ``waited``: seconds in which the program waited; ``reading``: seconds in which the thread read;
    ``unexpected``: accesses out of order; ``relearned``: times a new order was taken.
    """

    accesses: int = 0
    used: int = 0
    read: int = 0
    waited: float = 0.0
    reading: float = 0.0
    unexpected: int = 0
    relearned: int = 0

    def since(self, before: PagingCounts) -> PagingCounts:
        """What was added after ``before``."""
        return PagingCounts(**{name: value - getattr(before, name) for name, value in vars(self).items()})

    @property
    def hit_rate(self) -> float:
        """Share of the bytes asked for that were there without a read."""
        return 1.0 - self.read / self.used if self.used else 0.0


class WeightPager:
    """Weights of ``layout`` behind the frames of a schedule. ``borrow`` and ``release`` may come from any thread."""

    def __init__(
        self, layout: WeightLayout, files: WeightFiles, order: Sequence[Access], schedule: WeightSchedule
    ) -> None:
        """Reserve the line and start the reader; ``order``: the weights of each access of one pass, for which ``schedule`` is.

        Raises:
            MemoryError: no address space, or no thread.
        """
        self.layout, self.files, self.frames = layout, files, schedule.capacity
        self.counts = PagingCounts()
        self._order = UseOrder(order)
        self._take(schedule)
        self.memory = PageFrames(layout.chunks, self.frames, layout.chunk_bytes)
        count = layout.chunks
        self._resident, self._kept = bytearray(count), bytearray(count)
        self._busy, self._queued = [0] * count, [0] * count
        self._loose: dict[int, None] = {}
        self._held: list[tuple[tuple[int, ...], Callable[[], bool]]] = []
        self._cursor = self._base = self._current = 0
        self._waiting: list[tuple[int, ...]] = []
        self._chunks: dict[Access, tuple[int, ...]] = {}
        self._last: frozenset[int] = frozenset()
        self._error: BaseException | None = None
        self._closed = False
        self._process = os.getpid()
        lock = threading.RLock()
        self._change, self._work = threading.Condition(lock), threading.Condition(lock)  # for the program, the reader
        self._idle = False
        self._reader = threading.Thread(target=self._read, name="memfit-weights", daemon=True)
        try:
            self._reader.start()
        except RuntimeError as error:  # a thread's stack is memory too
            self.memory.close()
            raise MemoryError(f"no memory for the reading thread ({error})") from error

    def _take(self, schedule: WeightSchedule) -> None:
        self.schedule = schedule
        self._touches: list[int] = self.schedule.chunk.tolist()
        self._first: list[int] = self.schedule.first.tolist()
        self._keep: list[bool] = self.schedule.keep.tolist()

    # what the program calls

    def borrow(self, weights: Access) -> tuple[int, ...]:
        """Wait until all bytes of ``weights`` are there and hold them there; the chunks, for ``release``.

        Raises:
            MemfitError: a file changed, or cannot be read.
            BudgetError: what is held already leaves no frames.
        """
        if os.getpid() != self._process:
            raise MemfitError("paged weights cannot be used in a forked process; page the model there")
        with self._change:
            self._refuse()
            place, expected = self._order.follow(weights)
            if not expected:
                self.counts.unexpected += 1
            if self._relearn(self._order.loop(weights, expected)):
                place = 0
            chunks = self._chunks_of(weights)
            for chunk in chunks:
                self._busy[chunk] += 1
                self._loose.pop(chunk, None)
            if place is not None:
                self._advance(place, expected)
            self._count(chunks)
            if not all(self._resident[chunk] for chunk in chunks):
                self._wait(chunks)
        return chunks

    def _chunks_of(self, weights: Access) -> tuple[int, ...]:
        if weights not in self._chunks:
            self._chunks[weights] = tuple(self.layout.access(weights))
        return self._chunks[weights]

    def _count(self, chunks: tuple[int, ...]) -> None:
        now = frozenset(chunks)
        self.counts.accesses += 1
        self.counts.used += len(now - self._last) * self.layout.chunk_bytes
        self._last = now

    def _wait(self, chunks: tuple[int, ...]) -> None:
        begun = time.perf_counter()
        self._waiting.append(chunks)
        self._work.notify()
        try:
            while not all(self._resident[chunk] for chunk in chunks):
                self._change.wait()
                self._refuse()
        except BaseException:
            self._let_go(chunks)
            raise
        finally:
            self._waiting.remove(chunks)
            self.counts.waited += time.perf_counter() - begun

    def _refuse(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise MemfitError("the paged weights were closed; page the model again")

    def release(self, chunks: tuple[int, ...], free: Callable[[], bool]) -> None:
        """The access that borrowed ``chunks`` is over; ``free`` says whether no view of its weights is left."""
        with self._change:
            if free():
                self._let_go(chunks)
            else:
                self._held.append((chunks, free))
            room = self._loose or self._held or self._waiting or self.memory.taken < self.frames
            if self._idle and room and self._next_chunk() is not None:  # waking a thread for nothing costs more
                self._work.notify()

    def read_rows(self, stored: StoredTensor, file: int, rows: Sequence[int], target: memoryview) -> None:
        """Rows of a weight of two dimensions, ascending, straight from its file into ``target`` (bytes).

        Raises:
            WeightFileError: as ``WeightFiles.read_into``.
        """
        self._refuse()
        width = stored.nbytes // stored.shape[0]
        ends = [end for end in range(1, len(rows) + 1) if end == len(rows) or rows[end] != rows[end - 1] + 1]
        runs = list(zip([0, *ends[:-1]], ends, strict=True))
        for begin, end in runs:
            self.files.expect(file, stored.begin + int(rows[begin]) * width, (end - begin) * width)
        for begin, end in runs:
            self.files.read_row(target[begin * width : end * width], file, stored.begin + int(rows[begin]) * width)
        self.files.check_unchanged(file)

    def fail(self, error: MemfitError) -> None:
        """Refuse every later access with ``error``: what is in memory is no longer what the file says."""
        with self._change:
            self._error = error
            self._change.notify_all()
            self._work.notify()

    def close(self, *, keep_memory: bool = False) -> None:
        """Stop the reader and give all memory back, unless something still shows it; the counts stay."""
        with self._change:
            if self._closed:
                return
            self._closed = True
            self._change.notify_all()
            self._work.notify()
        if os.getpid() == self._process:
            self._reader.join()
        if not keep_memory:
            self.memory.close()
        self.files.close()

    def snapshot(self) -> PagingCounts:
        """The counts now."""
        with self._change:
            return replace(self.counts)

    # under the lock

    def _let_go(self, chunks: Sequence[int]) -> None:
        for chunk in chunks:
            self._busy[chunk] -= 1
            if not self._busy[chunk] and self._resident[chunk] and not self._kept[chunk] and not self._queued[chunk]:
                self._loose[chunk] = None

    def _advance(self, place: int, expected: bool) -> None:
        """The access at ``place`` begins: what it keeps, and where reading ahead starts from."""
        begin, end = self._first[place], self._first[place + 1]
        if not expected:
            self._restart(begin)
        for touch in range(begin, end):
            chunk = self._touches[touch]
            self._kept[chunk] = self._keep[touch]
            if self._base + touch - begin < self._cursor:
                self._queued[chunk] -= 1
        self._base += end - begin
        self._current = end - begin
        self._cursor = max(self._cursor, self._base)

    def _restart(self, touch: int) -> None:
        """Read ahead from ``touch`` on; what was read ahead for elsewhere may leave."""
        self._base = self._cursor = touch
        for chunk, queued in enumerate(self._queued):
            if queued:
                self._queued[chunk] = 0
                if self._resident[chunk] and not self._busy[chunk] and not self._kept[chunk]:
                    self._loose[chunk] = None

    def _relearn(self, loop: list[Hashable] | None) -> bool:
        """Take a new order; its first access happens now."""
        if loop is None:
            return False
        self._order.learn(loop)
        self._order.follow(loop[0])
        accesses = [self.layout.access(weights) for weights in loop]  # type: ignore[arg-type]
        self._take(schedule_weights(accesses, self.frames))
        self.counts.relearned += 1
        used = set(self._touches)
        for chunk in range(self.layout.chunks):
            if chunk not in used and self._kept[chunk]:
                self._kept[chunk] = 0
                if self._resident[chunk] and not self._busy[chunk]:
                    self._loose[chunk] = None
        return True

    def _next_chunk(self) -> int | None:
        """What to read now: what the program waits for, else the first chunk in order of use that is not there."""
        for chunks in self._waiting:
            for chunk in chunks:
                if not self._resident[chunk]:
                    return chunk
        touches = len(self._touches)
        while self._cursor < self._base + touches - self._current:
            chunk = self._touches[self._cursor % touches]
            if not self._resident[chunk]:
                return chunk
            self._queued[chunk] += 1
            self._loose.pop(chunk, None)
            self._cursor += 1
        return None

    def _frame_for(self, chunk: int) -> int | None:
        """The chunk whose frame ``chunk`` gets, -1 for one that nobody has, None where it has to wait."""
        if self.memory.taken < self.memory.frames:
            return -1
        if not self._loose:
            still: list[tuple[tuple[int, ...], Callable[[], bool]]] = []
            for chunks, free in self._held:
                if free():
                    self._let_go(chunks)
                else:
                    still.append((chunks, free))
            self._held = still
        if self._loose:
            return self._loose.popitem()[0]
        if not any(chunk in chunks for chunks in self._waiting):
            return None
        victim = self._latest_used()
        if victim is None:
            needed = sum(1 for busy in self._busy if busy) * self.layout.chunk_bytes
            raise BudgetError(
                needed, self.frames * self.layout.chunk_bytes, "views of weights that the program still holds",
                "let go of views such as weight.T, or copy them",
            )  # fmt: skip
        self._kept[victim] = 0
        if self._queued[victim]:
            self._restart(self._base)
            self._loose.pop(victim, None)
        return victim

    def _latest_used(self) -> int | None:
        """The chunk that may leave and whose next use is farthest away."""
        distance: dict[int, int] = {}
        for step in range(len(self._touches)):
            distance.setdefault(self._touches[(self._base + step) % len(self._touches)], step)
        free = [c for c, there in enumerate(self._resident) if there and not self._busy[c]]
        return max(free, key=lambda c: distance.get(c, len(self._touches)), default=None)

    # the reader

    def _read(self) -> None:
        try:
            while True:
                with self._change:
                    job = self._job()
                    while job is None and not self._closed:
                        self._idle = True
                        self._work.wait()
                        self._idle = False
                        job = self._job()
                    if self._closed or job is None:
                        return
                    chunk, victim = job
                    if victim >= 0:
                        self._resident[victim] = 0
                begun = time.perf_counter()
                if victim >= 0:
                    self.memory.move(victim, chunk)
                else:
                    self.memory.place(chunk)
                view = self.memory.view(chunk)
                for piece in self.layout.pieces(chunk):
                    self.files.read_into(view[piece.begin : piece.begin + piece.nbytes], piece.file, piece.offset)
                with self._change:
                    self.counts.reading += time.perf_counter() - begun
                    self.counts.read += self.layout.chunk_bytes
                    self._resident[chunk] = 1
                    if not self._busy[chunk]:
                        self._loose[chunk] = None  # until reading ahead passes over it
                    if self._waiting:
                        self._change.notify_all()
        except BaseException as error:
            with self._change:
                self._error = error
                self._change.notify_all()

    def _job(self) -> tuple[int, int] | None:
        if self._closed:
            return None
        chunk = self._next_chunk()
        if chunk is None:
            return None
        victim = self._frame_for(chunk)
        return None if victim is None else (chunk, victim)
