"""Does memory grow from step to step? Told from the live bytes at the end of each step.

The first step is set apart: optimizer state and caches appear in it. Growing means: over the second half of the steps
(at least two of them) the net growth is at least 1 KiB a step, and two steps in three grow, so that neither a cache
that has filled up nor a collector that runs now and then is taken for a leak. Fewer than three steps tell nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_NOTICEABLE = 1024


@dataclass(frozen=True, slots=True)
class Growth:
    """``bytes_per_step``: net, over the ``steps`` looked at; ``growing``: None where too few steps ran."""

    bytes_per_step: int
    growing: bool | None
    steps: int

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {"bytes_per_step": self.bytes_per_step, "growing": self.growing, "steps": self.steps}


def growth_of(ends: Sequence[int]) -> Growth:
    """Growth from the live bytes at the end of each step.

    >>> growth_of([100, 5000, 10000]).growing, growth_of([0, 9000, 9000, 9000]).growing, growth_of([5]).growing
    (True, False, None)
    """
    differences = [after - before for before, after in pairwise(ends)]
    tail = differences[-max(2, (len(differences) + 1) // 2) :]
    if len(tail) < 2:
        return Growth(sum(tail), None, len(tail))
    net = sum(tail)
    rising = sum(1 for difference in tail if difference > 0)
    return Growth(net // len(tail), net >= _NOTICEABLE * len(tail) and 3 * rising >= 2 * len(tail), len(tail))
