"""ONNX Runtime's arena, by its rules, as a policy.

A descendant of TensorFlow's allocator: the same chunks, best fit and split (``max_dead_bytes_per_chunk``, 128 MiB); see
``chunks``. It grows by one of two strategies:

* ``next_power_of_two`` (default): the first region is ``initial_chunk`` (1 MiB); a region that needed no doubling makes
  the next one twice as large, up to ``largest_extension`` (1 GiB);
* ``same_as_requested``: a region is what was asked for.

Nothing is collected when memory runs out. EMPTY_CACHE is the shrink that a run may ask for (``memory.enable_memory_arena_
shrinkage``): wholly free regions go back, the first one only with ``same_as_requested``, and growth starts anew at
``growth_chunk`` (2 MiB). Read from ``bfc_arena.cc``. Not modelled: streams, and memory reserved for initializers.
"""

from __future__ import annotations

from dataclasses import dataclass

from memfit.allocators.bfc import replay_chunks
from memfit.allocators.chunks import Growth
from memfit.allocators.policy import Replay
from memfit.ir.requests import Requests
from memfit.units import format_bytes

DEAD_BYTES = 128 << 20


@dataclass(frozen=True)
class OnnxArenaPolicy:
    """See the module text; sizes in bytes."""

    same_as_requested: bool = False
    initial_chunk: int = 1 << 20
    growth_chunk: int = 2 << 20
    max_dead_bytes: int = DEAD_BYTES
    largest_extension: int = 1 << 30

    @property
    def name(self) -> str:
        """``ONNX Runtime arena``, with the settings that people change."""
        changed = ["same as requested"] if self.same_as_requested else []
        changed += [] if self.max_dead_bytes == DEAD_BYTES else [f"dead bytes {format_bytes(self.max_dead_bytes)}"]
        return "ONNX Runtime arena" + (f" ({', '.join(changed)})" if changed else "")

    @property
    def growth(self) -> Growth:
        """The rules as the heap takes them."""
        return Growth(
            first=self.initial_chunk, doubles=not self.same_as_requested, largest=self.largest_extension,
            spare=self.max_dead_bytes, collects=False, shrinks=True, keeps_first=not self.same_as_requested,
            after_shrink=self.growth_chunk,
        )  # fmt: skip

    def replay(
        self, requests: Requests, capacity: int | None = None, *, series: bool = False, twin: bool = False
    ) -> Replay:
        """See ``policy.Policy``."""
        return replay_chunks(self.name, self.growth, requests, capacity, series, twin)
