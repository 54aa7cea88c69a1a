"""The rows of one batch in a key/value cache: which blocks each holds, and the ranges that show them side by side.

    layer 0 keys    [ row 0: token after token . . . | row 1 . . . ]     one range a stream, one stretch of it a row
    layer 0 values  [ row 0 . . .                    | row 1 . . . ]     a stream: the keys or the values of one layer

A row writes into its own lane of the memory file. Blocks it shares with others (a fork, a beam, a common beginning) are
shown in front of it and never written: a write into one moves the row to another lane first, with a copy of that block
alone. Costs: appending is a copy of the tokens; a fork is one ``mmap`` a row and stream, and a copy of one block.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from memfit.runtime.virtual_range import TokenAppender, VirtualRange

if TYPE_CHECKING:
    from memfit.runtime.kv_cache import KeyValueStore

__all__ = ["Rows"]


@dataclass
class _Row:
    lane: int
    blocks: list[int] = field(default_factory=list)
    published: set[int] = field(default_factory=set)  # indexes of blocks, not numbers


@dataclass
class _Held:
    """What has to be given back when a batch goes."""

    rows: list[_Row]
    ranges: list[VirtualRange] = field(default_factory=list)


def _give_back(store: KeyValueStore, held: _Held) -> None:
    if not store.foreign:
        for row in held.rows:
            store.release(row.blocks)
            store.table.close_lane(row.lane)
        held.rows.clear()
    for area in held.ranges:
        area.retire()
    held.ranges.clear()


def runs(blocks: Sequence[int]) -> list[tuple[int, int, int]]:
    """Stretches of consecutive block numbers, as (index in the row, first number, count)."""
    out: list[tuple[int, int, int]] = []
    for index, block in enumerate(blocks):
        if out and out[-1][1] + out[-1][2] == block:
            out[-1] = (out[-1][0], out[-1][1], out[-1][2] + 1)
        else:
            out.append((index, block, 1))
    return out


class Rows:
    """``count`` rows of a store, all of the same length; empty, or with ``shared`` blocks in front of each."""

    def __init__(self, store: KeyValueStore, count: int, shared: Sequence[Sequence[int]] = ()) -> None:
        self.store = store
        self._held = _Held([])
        self._close = weakref.finalize(self, _give_back, store, self._held)
        self._close.atexit = False
        for index in range(count):
            row = _Row(store.table.open_lane())
            self._held.rows.append(row)
            if shared:
                store.table.retain(np.asarray(shared[index], np.int64))
                row.blocks = [int(block) for block in shared[index]]
                row.published = set(range(len(row.blocks)))
        self.lengths: list[int] = []  # tokens, by layer
        self.appenders: list[TokenAppender] = []  # by stream
        self._cropped = False  # only then can a write begin inside a block that others hold or know
        self._ready = 0 if not shared else len(shared[0]) * store.block_tokens
        for _ in range(store.layers if shared else 0):
            self.add_layer(self._ready)

    @property
    def count(self) -> int:
        """Rows."""
        return len(self._held.rows)

    @property
    def closed(self) -> bool:
        """Whether everything was given back."""
        return not self._close.alive

    def blocks(self, row: int) -> list[int]:
        """The numbers of the blocks that a row holds, in order."""
        return list(self._held.rows[row].blocks)

    def add_layer(self, length: int = 0) -> int:
        """The streams of one more layer (which the store knows); its index."""
        store = self.store
        layer = len(self.lengths)
        for stream in (2 * layer, 2 * layer + 1):
            row_bytes = store.row_bytes(stream)
            area = VirtualRange(row_bytes * self.count)
            self._held.ranges.append(area)
            heads, head_bytes = store.heads(stream)
            self.appenders.append(TokenAppender(area, self.count, heads, head_bytes, row_bytes))
            for row in range(self.count):
                self._show(row, stream)
        self.lengths.append(length)
        return layer

    def bytes(self, layer: int) -> tuple[Any, Any]:
        """Keys and values of a layer as arrays of bytes, all rows to the ends of their lanes; they keep the ranges."""
        return self._held.ranges[2 * layer].bytes(), self._held.ranges[2 * layer + 1].bytes()

    def prepare(self, layer: int, tokens: int) -> int:
        """Makes room for more tokens of a layer; the position of the first one.

        Raises:
            BudgetError: the budget has no room for them; nothing changed.
        """
        start = self.lengths[layer]
        if start + tokens > self._ready:
            self._grow(start + tokens)
        if self._cropped and tokens:
            self._own(start)
        return start

    def wrote(self, layer: int, tokens: int) -> None:
        """Tokens were appended to a layer."""
        self.lengths[layer] += tokens

    def crop(self, length: int) -> None:
        """Forgets everything behind ``length`` tokens, in every layer; blocks behind it go back."""
        store = self.store
        self.lengths = [min(length, before) for before in self.lengths]
        keep = store.blocks_for(length)
        self._cropped = True
        for index, row in enumerate(self._held.rows):
            gone = row.blocks[keep:]
            if not gone:
                continue
            del row.blocks[keep:]
            row.published = {block for block in row.published if block < keep}
            if store.release(gone) < len(gone):  # its places in the lane are still taken
                self._change_lane(index)
        self._ready = min(self._ready, keep * store.block_tokens)

    def select(self, indices: Sequence[int]) -> None:
        """Row i becomes what row ``indices[i]`` was (beams, repeats, a smaller batch); shared, not copied."""
        held, old = self._held, list(self._held.rows)
        same_count = len(indices) == len(old)
        new = [old[i] if same_count and i == j else None for i, j in enumerate(indices)]
        made: list[_Row] = []
        try:
            for i, j in enumerate(indices):
                if new[i] is None:
                    row = self._copy_of(old[j])
                    made.append(row)
                    new[i] = row
        except BaseException:
            for row in made:
                self.store.release(row.blocks)
                self.store.table.close_lane(row.lane)
            raise
        kept = [row for row in new if row is not None]
        for row in old:
            if not any(row is other for other in kept):
                self.store.release(row.blocks)
                self.store.table.close_lane(row.lane)
        held.rows[:] = kept
        if same_count:
            for i, j in enumerate(indices):
                if i != j:
                    for stream in range(len(held.ranges)):
                        self._show(i, stream)
            return
        for area in held.ranges:
            area.retire()
        held.ranges.clear()
        self.appenders.clear()
        lengths, self.lengths = self.lengths, []
        for length in lengths:
            self.add_layer(length)

    def fork(self) -> Rows:
        """The same rows once more, sharing every full block; either may go on alone."""
        made = Rows(self.store, 0)
        for row in self._held.rows:
            made._held.rows.append(self._copy_of(row))
        made._ready = self._ready
        for length in self.lengths:
            made.add_layer(length)
        return made

    def publish(self, row: int, tokens: np.ndarray[Any, np.dtype[np.int32]]) -> int:
        """Lets others find the full blocks of a row by its tokens; how many blocks of it can be found now."""
        store, held = self.store, self._held.rows[row]
        full = min([len(tokens), *self.lengths]) // store.block_tokens if self.lengths else 0
        tokens = np.ascontiguousarray(tokens[: full * store.block_tokens], np.int32)
        chain = [int(block) for block in store.table.match(tokens, store.block_tokens)]
        for index in range(len(chain), full):
            if index in held.published:
                break
            part = tokens[index * store.block_tokens : (index + 1) * store.block_tokens]
            chain.append(store.table.publish(held.blocks[index], chain[-1] if chain else -1, part))
            held.published.add(index)
        return len(chain)

    def close(self) -> None:
        """Gives the blocks back and forgets the ranges; whoever still reads one sees zeros."""
        self._close()
        self.appenders.clear()

    def _grow(self, length: int) -> None:
        store, rows = self.store, self._held.rows
        wanted = store.blocks_for(length)
        missing = sum(max(0, wanted - len(row.blocks)) for row in rows)
        store.check_room(missing, self.count, length, wanted)
        for row in rows:
            if wanted > len(row.blocks):
                store.allocate(row.lane, len(row.blocks), wanted - len(row.blocks))
                first = row.lane * store.lane_blocks
                row.blocks.extend(range(first + len(row.blocks), first + wanted))
        if (
            length - max(self.lengths, default=0) == 1
        ):  # decoding: one call for a block, instead of a fault for each page
            for stream, area in enumerate(self._held.ranges):
                size = store.block_tokens * store.token_bytes(stream)
                for index in range(self.count):
                    area.populate(index * store.row_bytes(stream) + (wanted - 1) * size, size)
        self._ready = wanted * store.block_tokens

    def _own(self, position: int) -> None:
        """The block that a write begins in belongs to each row alone."""
        index = position // self.store.block_tokens
        if position % self.store.block_tokens == 0:
            self._cropped = False
            return
        for number, row in enumerate(self._held.rows):
            if index in row.published or self.store.table.references(row.blocks[index]) > 1:
                self.store.check_room(len(row.blocks) - index, self.count, position, len(row.blocks))
                own = self._copy_of(row, position)
                self.store.allocate(own.lane, len(own.blocks), len(row.blocks) - len(own.blocks))
                first = own.lane * self.store.lane_blocks
                own.blocks.extend(range(first + len(own.blocks), first + len(row.blocks)))
                self.store.release(row.blocks)
                self.store.table.close_lane(row.lane)
                self._held.rows[number] = own
                for stream in range(len(self._held.ranges)):
                    self._show(number, stream)
        self._cropped = False

    def _copy_of(self, row: _Row, length: int | None = None) -> _Row:
        """A row of the same tokens: full blocks shared, the last one copied."""
        store = self.store
        length = max(self.lengths, default=0) if length is None else length
        full = length // store.block_tokens
        rest = length % store.block_tokens
        if rest:
            store.check_room(1, self.count, length, store.blocks_for(length))
        made = _Row(store.table.open_lane(), row.blocks[:full], {index for index in row.published if index < full})
        store.table.retain(np.asarray(made.blocks, np.int64))
        if rest:
            store.allocate(made.lane, full, 1)
            made.blocks.append(made.lane * store.lane_blocks + full)
            number = next(i for i, other in enumerate(self._held.rows) if other is row)
            for stream, area in enumerate(self._held.ranges):
                size = store.token_bytes(stream)
                at = number * store.row_bytes(stream) + full * store.block_tokens * size
                store.file.write(store.offset(stream, made.blocks[full]), area, at, rest * size)
        return made

    def _change_lane(self, index: int) -> None:
        row = self._held.rows[index]
        lane = self.store.table.open_lane()
        self.store.table.close_lane(row.lane)
        row.lane = lane
        for stream in range(len(self._held.ranges)):
            self._show(index, stream)

    def _show(self, index: int, stream: int) -> None:
        store, row = self.store, self._held.rows[index]
        area, size = self._held.ranges[stream], store.block_tokens * store.token_bytes(stream)
        base = index * store.row_bytes(stream)
        own = row.lane * store.lane_blocks
        shown = [*row.blocks, own + len(row.blocks)] if len(row.blocks) < store.lane_blocks else row.blocks
        stretches = runs(shown)
        for at, first, count in stretches:
            if at + count == len(shown) and len(row.blocks) < store.lane_blocks:
                count = store.lane_blocks - at
            area.show(base + at * size, count * size, store.file, store.offset(stream, first))
