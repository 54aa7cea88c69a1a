"""A lower bound on the least peak beyond the load: parts of the problem that provably do not fit.

The buffers alive in a few neighbouring sections are a problem of their own; a limit at which they cannot be placed is
too low for the whole. Parts begin at the fullest instants and grow to both sides; a part is searched completely, for a
bounded time, at one unit above what is proved. (The load of one or two sections can always be reached, so parts begin
with three.) A part that is not decided in its time proves nothing and is left. Cost: bounded by ``time_limit``.
"""

from __future__ import annotations

import time

import numpy as np

from memfit.planners import exact
from memfit.planners.problem import Instance

_WIDTHS = (3, 4, 6, 8, 12, 16, 24)
_FULLEST = 8


def alive_between(instance: Instance, first: int, last: int) -> list[int]:
    """Buffers with a piece alive in some instant of [first, last]."""
    owner = np.repeat(np.arange(len(instance)), np.diff(instance.start))
    return np.unique(owner[(instance.piece_lower <= last) & (instance.piece_upper > first)]).tolist()


def raise_bound(instance: Instance, bound: int, *, unit: int = 1, time_limit: float = 1.0) -> int:
    """``bound`` (bytes, proved) or a higher proved lower bound on the least peak.

    ``unit``: bytes that every size, offset and alignment is a multiple of; ``time_limit``: seconds of wall time.
    """
    until = time.perf_counter() + time_limit
    instants = np.unique(instance.piece_lower)
    used = instance.piece_high - instance.piece_low
    loads = [int(used[(instance.piece_lower <= t) & (t < instance.piece_upper)].sum()) for t in instants]
    fullest = sorted(range(len(instants)), key=lambda k: (-loads[k], k))[:_FULLEST]
    for width in _WIDTHS:
        for middle in fullest:
            first, last = max(middle - width // 2, 0), min(middle + (width + 1) // 2, len(instants)) - 1
            part = exact.subset(instance, alive_between(instance, int(instants[first]), int(instants[last])))
            while True:
                left = until - time.perf_counter()
                if left <= 0:
                    return bound
                patience = min(left, max(time_limit / 16, 0.01))
                if exact.place(part, bound, time_limit=patience).status != "infeasible":
                    break
                bound += unit
    return bound
