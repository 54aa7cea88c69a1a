"""TensorFlow's BFC allocator ("best fit with coalescing"), by its rules, as a policy.

Chunks of 256 bytes and more, best fit, split at twice the request or at 128 MiB to spare (see ``chunks``); with
``allow_growth`` regions grow from 2 MiB (1 MiB in releases before 2.5) by doubling, without it the first region is the
whole capacity; wholly free regions are collected when memory runs out (``TF_ENABLE_GPU_GARBAGE_COLLECTION``, on);
with the virtual-memory sub-allocator a new region continues the last one (``regions_join``). Read from
``bfc_allocator.cc`` of TensorFlow and its TSL. Not modelled: timestamped chunks of several streams, backing off when the
system refuses less than the capacity, and retries after waiting. Without a capacity, "all at once" has nothing to take
all of, and grows. Cost: O(log n) an event (kernel), O(chunks) (twin).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from memfit import _core
from memfit.allocators.chunks import ChunkHeap, Growth
from memfit.allocators.policy import Replay
from memfit.allocators.serving import Outcome, check_requests, replay_of, serve
from memfit.ir.requests import Requests
from memfit.units import format_bytes

FIRST_REGION = 2 << 20
SPARE = 128 << 20


def replay_chunks(
    name: str, growth: Growth, requests: Requests, capacity: int | None, series: bool, twin: bool
) -> Replay:
    """A replay over chunks in regions; raises TraceError for requests that no program can have made."""
    blocks = check_requests(requests)
    begun = time.process_time()
    if twin:
        outcome = serve(ChunkHeap(growth, capacity), requests, series)
    else:
        outcome = Outcome(*_core.replay_chunks(
            requests.action, requests.block, requests.nbytes, blocks, -1 if capacity is None else capacity, series,
            growth.numbers(),
        ))  # fmt: skip
    return replay_of(name, requests, outcome, begun, series, "region")


@dataclass(frozen=True)
class BfcPolicy:
    """See the module text. ``first_region``, ``spare``: bytes."""

    allow_growth: bool = True
    first_region: int = FIRST_REGION
    spare: int = SPARE
    garbage_collection: bool = True
    regions_join: bool = False

    @property
    def name(self) -> str:
        """``TensorFlow BFC``, with the settings that are not the default."""
        changed = [] if self.allow_growth else ["all at once"]
        changed += [] if self.first_region == FIRST_REGION else [f"from {format_bytes(self.first_region)}"]
        changed += [] if self.spare == SPARE else [f"spare {format_bytes(self.spare)}"]
        changed += [] if self.garbage_collection else ["no collection"]
        changed += ["regions join"] if self.regions_join else []
        return "TensorFlow BFC" + (f" ({', '.join(changed)})" if changed else "")

    @property
    def growth(self) -> Growth:
        """The rules as the heap takes them."""
        return Growth(
            first=self.first_region, everything=not self.allow_growth, spare=self.spare,
            collects=self.garbage_collection, joins=self.regions_join,
        )  # fmt: skip

    def replay(
        self, requests: Requests, capacity: int | None = None, *, series: bool = False, twin: bool = False
    ) -> Replay:
        """See ``policy.Policy``."""
        return replay_chunks(self.name, self.growth, requests, capacity, series, twin)
