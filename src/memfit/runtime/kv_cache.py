"""A key/value cache under a byte budget: one memory file, one table of blocks, any number of batches of rows over them.

A block is 16 tokens in every layer, keys and values. A page of memory belongs to one block and one stream, so a block's
part of a stream must be whole pages: 16 tokens of 8 heads x 64 in fp32 are 32 KiB, eight pages. Where 16 tokens are less
(below 256 bytes a token and stream, or no multiple of 256), a block is the smallest multiple of 16 tokens that is whole
pages: there, sharing by page pays only for longer stretches, and the ends of forks are copied.

The budget is kept by blocks: blocks that exist, times their bytes in all layers, never exceed it; the pages that really
exist are never more than that (``resident``). Blocks that nobody holds but can be found by their tokens stay until room is
needed. Source of blocks and reference counts: Kwon et al. (2023), PagedAttention; of contiguous ranges: Prabhu et al. (2024),
vAttention.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memfit.errors import BudgetError
from memfit.runtime.block_table import BlockTable
from memfit.runtime.kv_rows import Rows, runs
from memfit.runtime.virtual_range import SharedFile

__all__ = ["BLOCK_TOKENS", "KeyValueStore", "LayerShape", "block_tokens_for"]

BLOCK_TOKENS = 16
_STREAM = 1 << 44  # bytes of the file that a stream may spread over; they cost nothing
_FILE = 1 << 61
_LONGEST_ROW = 1 << 20  # tokens, where the caller sets none
_stores: weakref.WeakSet[KeyValueStore] = weakref.WeakSet()


@dataclass(frozen=True)
class LayerShape:
    """One token in one layer: heads, and bytes of one head's key and value."""

    heads: int
    key_bytes: int
    value_bytes: int

    @property
    def token_bytes(self) -> tuple[int, int]:
        """Bytes of a token's keys and of its values."""
        return self.heads * self.key_bytes, self.heads * self.value_bytes


def block_tokens_for(shape: LayerShape, page: int = mmap.PAGESIZE) -> int:
    """Tokens of a block: the smallest multiple of 16 whose keys, and whose values, are whole pages.

    >>> block_tokens_for(LayerShape(8, 256, 256), 4096), block_tokens_for(LayerShape(1, 64, 64), 4096)
    (16, 64)
    """
    return math.lcm(*(BLOCK_TOKENS * page // math.gcd(page, BLOCK_TOKENS * size) for size in shape.token_bytes))


class KeyValueStore:
    """The blocks of one model under ``budget`` bytes.

    Args:
        budget: bytes of blocks.
        first: the first layer's token.
        layers: how many there will be; 0: not known.
        longest: tokens of the longest row; 0: as many as the budget holds.

    Raises:
        BudgetError: not even one block fits.
    """

    def __init__(self, budget: int, first: LayerShape, layers: int = 0, longest: int = 0) -> None:
        self.budget, self._expected, self._first = budget, layers, first
        self.block_tokens = block_tokens_for(first)
        self.block_bytes = self.block_tokens * sum(first.token_bytes) * max(1, layers)
        if budget < self.block_bytes:
            raise BudgetError(self.block_bytes, budget, f"one block of {self.block_tokens} tokens", self._hint())
        longest = min(longest or _LONGEST_ROW, _LONGEST_ROW, budget // self.block_bytes * self.block_tokens)
        self.lane_blocks = self.blocks_for(longest)
        self.table = BlockTable(budget // self.block_bytes, self.lane_blocks)
        self.file = SharedFile(_FILE)
        self.foreign = False
        self._shapes: list[LayerShape] = []
        _stores.add(self)

    @property
    def layers(self) -> int:
        """Layers seen so far."""
        return len(self._shapes)

    @property
    def used(self) -> int:
        """Bytes of blocks that rows hold."""
        return self.table.held * self.block_bytes

    @property
    def kept(self) -> int:
        """Bytes of blocks that nobody holds and that can be found by their tokens."""
        return self.table.unused * self.block_bytes

    @property
    def resident(self) -> int:
        """Bytes of memory pages that exist, measured: the kernel's count."""
        return self.file.resident

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold so many tokens of a row."""
        return -(-tokens // self.block_tokens)

    def token_bytes(self, stream: int) -> int:
        """Bytes of a token in a stream (the keys of layer i: 2 i; its values: 2 i + 1)."""
        return self._shapes[stream // 2].token_bytes[stream % 2]

    def heads(self, stream: int) -> tuple[int, int]:
        """Heads of a stream, and bytes of one."""
        shape = self._shapes[stream // 2]
        return shape.heads, (shape.key_bytes, shape.value_bytes)[stream % 2]

    def row_bytes(self, stream: int) -> int:
        """Bytes of addresses from one row to the next."""
        return self.lane_blocks * self.block_tokens * self.token_bytes(stream)

    def offset(self, stream: int, block: int) -> int:
        """Where a block's part of a stream begins in the file."""
        return stream * _STREAM + block * self.block_tokens * self.token_bytes(stream)

    def add_layer(self, shape: LayerShape) -> None:
        """One more layer, in the order of the model.

        Raises:
            BudgetError: with it, what is held exceeds the budget.
            ValueError: a block of it would not be whole pages.
        """
        if any(self.block_tokens * size % mmap.PAGESIZE for size in shape.token_bytes):
            raise ValueError(
                f"layer {self.layers} has tokens of {shape.token_bytes} bytes, {self.block_tokens} of which are no whole "
                f"pages of {mmap.PAGESIZE}: layers of such different shapes cannot share a key/value cache"
            )
        shapes = [*self._shapes, shape]
        ahead = max(0, self._expected - len(shapes)) * sum(self._first.token_bytes)
        each = self.block_tokens * (sum(sum(other.token_bytes) for other in shapes) + ahead)
        evicted = self.table.resize(self.budget // each)
        if evicted is None:
            raise BudgetError(self.table.held * each, self.budget, self._where(len(shapes)), self._hint())
        self._punch(evicted)
        self._shapes, self.block_bytes = shapes, each

    def check_room(self, missing: int, rows: int, length: int, row_blocks: int) -> None:
        """Whether so many more blocks fit, and a row that long.

        Raises:
            BudgetError: they do not; it names the smallest budget with which this step works.
        """
        if self.foreign:
            raise RuntimeError("this key/value cache belongs to the parent process; a forked child may read it only")
        held = self.table.held + missing
        if held <= self.table.capacity and row_blocks <= self.lane_blocks:
            return
        what = f"{rows} rows of {length} tokens"
        if held <= self.table.capacity:
            raise BudgetError(
                row_blocks * self.block_bytes,
                self.lane_blocks * self.block_bytes,
                what,
                "raise max_tokens of the cache",
            )
        shared = held - rows * row_blocks
        others = f" beside {shared} blocks of other sequences" if shared > 0 else ""
        raise BudgetError(
            held * self.block_bytes, self.budget, f"{what}{others} in {self._where(self.layers)}", self._hint()
        )

    def allocate(self, lane: int, first: int, count: int) -> None:
        """Blocks of a lane; ``check_room`` was asked before."""
        evicted = self.table.allocate(lane, first, count)
        if evicted is None:
            raise BudgetError(
                (self.table.held + count) * self.block_bytes, self.budget, self._where(self.layers), self._hint()
            )
        self._punch(evicted)

    def release(self, blocks: Sequence[int]) -> int:
        """One holder less of each; pages of those that are gone go back. Returns how many are gone."""
        freed = self.table.release(np.asarray(blocks, np.int64))
        self._punch(freed)
        return len(freed)

    def rows(self, count: int, shared: Sequence[Sequence[int]] = ()) -> Rows:
        """A new batch of rows, with blocks that ``match`` found in front of each."""
        return Rows(self, count, shared)

    def match(self, tokens: Any) -> list[int]:
        """The blocks of the longest known beginning of a row of tokens."""
        return [int(block) for block in self.table.match(np.ascontiguousarray(tokens, np.int32), self.block_tokens)]

    def drop_unused(self) -> int:
        """Gives every block back that nobody holds; bytes of them."""
        freed = self.table.drop_unused()
        self._punch(freed)
        return len(freed) * self.block_bytes

    def _punch(self, blocks: Any) -> None:
        if not len(blocks):
            return
        for _, first, count in runs(sorted(int(block) for block in blocks)):
            for stream in range(2 * self.layers):
                size = self.block_tokens * self.token_bytes(stream)
                self.file.punch(self.offset(stream, first), count * size)

    def _where(self, layers: int) -> str:
        return f"{max(layers, self._expected)} layers" + ("" if self._expected else " (those seen so far)")

    def _hint(self) -> str:
        if self._expected:
            return "raise the budget, or shorten the batch or the sequences"
        return "raise the budget, or pass config=model.config so that every layer is counted from the start"


def _after_fork() -> None:
    for store in list(_stores):
        store.foreign = True


os.register_at_fork(after_in_child=_after_fork)
