"""Which row holds which block of tokens, who shares it, what goes when there is no room.

``BlockTable`` is the native table (``native/core/block_table.h`` says the rules); ``BlockTableTwin`` is the same rules in
plain Python, slow, and the oracle in tests: every answer equal, step by step.

Sharing is by tokens: a full block is found again by its own tokens and by the block before it, compared exactly, so that two
different beginnings are never mixed up. Eviction is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi 2023) over the blocks that
nobody holds: a block used once leaves through a small queue, one used again waits in the main one, and a scan of prompts
never seen again does not wash out the shared ones. Where we differ: used blocks are in no queue at all, and a block used
again is moved when it is released, not when it is met. Not optimal: OPT (the future known) keeps 6 % more on Zipf requests.
Every operation is O(1) a block, amortised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from memfit._core import BlockTable

__all__ = ["BlockTable", "BlockTableTwin"]


@dataclass
class _Block:
    birth: int
    references: int = 1
    hits: int = 0
    wanted: bool = False
    published: tuple[int, ...] | None = None  # the whole beginning, tokens of this block included
    parent: int = -1
    parent_birth: int = 0
    length: int = 0


class BlockTableTwin:
    """The rules of the native table, slowly. Same methods, lists where the native one has arrays."""

    def __init__(self, capacity: int, lane_blocks: int) -> None:
        self.capacity, self.lane_blocks = capacity, lane_blocks
        self._blocks: dict[int, _Block] = {}
        self._open: set[int] = set()
        self._births = 0
        self._known: dict[tuple[int, ...], int] = {}
        self._queues: dict[str, list[int]] = {"small": [], "main": []}
        self._ghosts: set[tuple[int, ...]] = set()
        self._ghost_order: deque[tuple[int, ...]] = deque()

    @property
    def unused(self) -> int:
        """Blocks that nobody holds and that can be found."""
        return len(self._queues["small"]) + len(self._queues["main"])

    @property
    def held(self) -> int:
        """Blocks that somebody holds."""
        return len(self._blocks) - self.unused

    def references(self, block: int) -> int:
        """How many hold a block."""
        return self._blocks[block].references if block in self._blocks else 0

    def open_lane(self) -> int:
        """The lowest lane that is not open and has no block."""
        used = self._open | {block // self.lane_blocks for block in self._blocks}
        lane = next(lane for lane in range(len(used) + 1) if lane not in used)
        self._open.add(lane)
        return lane

    def close_lane(self, lane: int) -> None:
        """The lane can be opened again once its blocks are gone."""
        self._open.remove(lane)

    def allocate(self, lane: int, first: int, count: int) -> list[int] | None:
        """Blocks of a lane, each held once; the numbers evicted for them, or ``None`` when there is no room."""
        if self.held + count > self.capacity:
            return None
        evicted = []
        while len(self._blocks) + count > self.capacity:
            evicted.append(self._evict())
        for index in range(first, first + count):
            self._births += 1
            self._blocks[lane * self.lane_blocks + index] = _Block(self._births)
        return evicted

    def retain(self, blocks: Sequence[int]) -> None:
        """One more holder of each."""
        for number in blocks:
            block = self._blocks[number]
            if block.references == 0:
                for queue in self._queues.values():
                    if number in queue:
                        queue.remove(number)
                block.wanted = True
            block.references += 1
            block.hits = min(3, block.hits + 1)

    def release(self, blocks: Sequence[int]) -> list[int]:
        """One holder less of each, the last first; the numbers of blocks that are gone."""
        freed = []
        for number in reversed(blocks):
            block = self._blocks[number]
            block.references -= 1
            if block.references:
                continue
            if block.published is not None and self._reachable(block):
                self._queues["main" if block.wanted else "small"].append(number)
            else:
                self._destroy(number)
                freed.append(number)
        return freed

    def publish(self, number: int, parent: int, tokens: Sequence[int]) -> int:
        """The block that stands for these tokens after ``parent`` (-1: at the start)."""
        before = self._blocks[parent].published if parent >= 0 else ()
        assert before is not None
        whole = (*before, *(int(token) for token in tokens))
        other = self._known.get(whole)
        if other is not None and self._blocks[other].parent == parent and self._reachable(self._blocks[other]):
            return other
        block = self._blocks[number]
        block.published, block.parent, block.length = whole, parent, len(tokens)
        block.parent_birth = self._blocks[parent].birth if parent >= 0 else 0
        block.wanted = whole in self._ghosts
        self._ghosts.discard(whole)
        self._known[whole] = number
        return number

    def match(self, tokens: Sequence[int], block_tokens: int) -> list[int]:
        """The blocks of the longest published beginning of these tokens."""
        found: list[int] = []
        whole = tuple(int(token) for token in tokens)
        for end in range(block_tokens, len(whole) + 1, block_tokens):
            number = self._known.get(whole[:end])
            if number is None:
                break
            block = self._blocks[number]
            if (
                block.parent != (found[-1] if found else -1)
                or not self._reachable(block)
                or block.length != block_tokens
            ):
                break
            found.append(number)
        return found

    def resize(self, capacity: int) -> list[int] | None:
        """Another capacity; the numbers evicted, or ``None`` when more is held."""
        if self.held > capacity:
            return None
        self.capacity = capacity
        evicted = []
        while len(self._blocks) > capacity:
            evicted.append(self._evict())
        return evicted

    def drop_unused(self) -> list[int]:
        """Removes every block that nobody holds; their numbers."""
        freed = [*self._queues["small"], *self._queues["main"]]
        self._queues = {"small": [], "main": []}
        for number in freed:
            self._destroy(number)
        return freed

    def _reachable(self, block: _Block) -> bool:
        if block.parent < 0:
            return True
        parent = self._blocks.get(block.parent)
        return parent is not None and parent.birth == block.parent_birth and parent.published is not None

    def _destroy(self, number: int) -> None:
        block = self._blocks.pop(number)
        if block.published is not None and self._known.get(block.published) == number:
            del self._known[block.published]

    def _evict(self) -> int:
        small, main = self._queues["small"], self._queues["main"]
        while True:
            if small and (not main or len(small) * 10 >= self.unused):
                number = small.pop(0)
                key = self._blocks[number].published
                assert key is not None
                if key not in self._ghosts:
                    self._ghosts.add(key)
                    self._ghost_order.append(key)
                    while len(self._ghost_order) > self.capacity:
                        self._ghosts.discard(self._ghost_order.popleft())
                break
            number = main.pop(0)
            if self._blocks[number].hits == 0:
                break
            self._blocks[number].hits -= 1
            main.append(number)
        self._destroy(number)
        return number
