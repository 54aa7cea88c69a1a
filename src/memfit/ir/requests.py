"""Requests: what a program asks of its allocator, event by event, without what the allocator answers.

Columns, in time order. Each allocation has a number of its own (``block``, dense from 0 in order of allocation), and
every later event about it names that number::

    event    0         1         2               3
    action   ALLOCATE  ALLOCATE  FREE_REQUESTED  FREE        block 0 is given back by the program at event 2, and is
    block    0         1         0               0           free to be used again from event 3 (another stream used it)
    nbytes   512       4096      0               0

A plain free is FREE alone. ``address``: where the real allocator put it (snapshots), -1 where not known. EMPTY_CACHE is
``torch.cuda.empty_cache()`` or its like: every wholly free segment goes back to the driver.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.ir.trace import Trace

Ints = npt.NDArray[np.int64]


class Action(IntEnum):
    """What happens at an event."""

    ALLOCATE = 0
    FREE = 1
    FREE_REQUESTED = 2
    EMPTY_CACHE = 3


@dataclass(frozen=True)
class Requests:
    """See the module text. ``stream`` and ``pool`` (0: the default one) of the block; ``label``: per block, or ()."""

    action: npt.NDArray[np.uint8]
    block: Ints
    nbytes: Ints
    stream: npt.NDArray[np.int32]
    pool: npt.NDArray[np.int32]
    address: Ints
    label: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.action)

    @property
    def blocks(self) -> int:
        """How many allocations there are."""
        return int(np.count_nonzero(self.action == Action.ALLOCATE))


def requests_of_events(block: npt.ArrayLike, delta: npt.ArrayLike, **columns: Any) -> Requests:
    """Requests from (storage, +/- bytes) events: a storage may come again after its free, as a new block.

    Events of 0 bytes, and frees of storages never allocated, are left out. Cost: O(events).
    """
    keys = np.asarray(block, dtype=np.int64)
    deltas = np.asarray(delta, dtype=np.int64)
    action, number, nbytes = [], [], []
    held: dict[int, int] = {}
    count = 0
    for key, change in zip(keys.tolist(), deltas.tolist(), strict=True):
        if change > 0 and key not in held:
            held[key] = count
            action.append(Action.ALLOCATE)
            number.append(count)
            nbytes.append(change)
            count += 1
        elif change < 0 and key in held:
            action.append(Action.FREE)
            number.append(held.pop(key))
            nbytes.append(0)
    events = len(action)
    return Requests(
        np.asarray(action, np.uint8), np.asarray(number, np.int64), np.asarray(nbytes, np.int64),
        np.zeros(events, np.int32), np.zeros(events, np.int32), np.full(events, -1, np.int64), **columns,
    )  # fmt: skip


def requests_of_trace(trace: Trace) -> Requests:
    """The Requests of a Trace: one stream, the default pool."""
    return requests_of_events(trace.storage, trace.delta, meta=dict(trace.meta))
