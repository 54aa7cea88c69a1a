"""What every allocator policy answers: the contract of a replay.

A policy takes Requests and a capacity and says what the program would have reserved. It exists twice: compiled, and as
a slow Python twin; both give the same numbers and the same addresses, byte for byte.

Words: *live* bytes asked for and not freed; *allocated* after the policy's rounding; *reserved* asked of the driver.
Internal fragmentation = 1 - live / allocated, external = 1 - allocated / reserved, fragmentation = 1 - peak live / peak
reserved. A *driver call* is one cudaMalloc, cudaFree, map or unmap (for the CPU policies: growing or shrinking the arena).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from memfit.ir.requests import Requests

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ReplaySeries:
    """Bytes after each event: ``live``, ``allocated``, ``reserved``; ``address`` of the block at each ALLOCATE, else -1."""

    live: Ints
    allocated: Ints
    reserved: Ints
    address: Ints


@dataclass(frozen=True, slots=True)
class Stranded:
    """Free bytes inside a segment at the reserved peak that no request could use. ``why``: the reason, in words."""

    segment: int
    segment_bytes: int
    free_bytes: int
    largest_hole: int
    why: str


@dataclass(frozen=True)
class Replay:
    """What one policy did. ``failed``: the event at which memory ran out (the replay stops there), or None.

    ``driver_allocations`` and ``driver_frees`` are counted apart; ``seconds``: CPU time of the replay itself.
    """

    policy: str
    peak_live: int
    peak_allocated: int
    peak_reserved: int
    driver_allocations: int
    driver_frees: int
    failed: int | None = None
    seconds: float = 0.0
    series: ReplaySeries | None = None
    stranded: tuple[Stranded, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def driver_calls(self) -> int:
        """Calls into the driver, both ways."""
        return self.driver_allocations + self.driver_frees

    @property
    def fragmentation(self) -> float:
        """1 - peak live / peak reserved; 0.0 for an empty trace."""
        return 1.0 - self.peak_live / self.peak_reserved if self.peak_reserved else 0.0


class Policy(Protocol):
    """A way to serve requests when the future is unknown."""

    @property
    def name(self) -> str:
        """What people call it, with its settings where they are not the default."""

    def replay(
        self, requests: Requests, capacity: int | None = None, *, series: bool = False, twin: bool = False
    ) -> Replay:
        """Serve ``requests`` with at most ``capacity`` bytes reserved (None: any number).

        ``series``: also the bytes after each event and the addresses. ``twin``: by the Python twin instead of the
        compiled kernel (the same answer, slower).
        """


def live_bytes(requests: Requests) -> Ints:
    """Live bytes after each event: from ALLOCATE to FREE_REQUESTED, or to FREE where there is none. Cost: O(events)."""
    size: dict[int, int] = {}
    out = np.zeros(len(requests), np.int64)
    live = 0
    for event, (action, block, nbytes) in enumerate(
        zip(requests.action.tolist(), requests.block.tolist(), requests.nbytes.tolist(), strict=True)
    ):
        if action == 0:
            size[block] = nbytes
            live += nbytes
        elif action != 3:
            live -= size.pop(block, 0)
        out[event] = live
    return out
