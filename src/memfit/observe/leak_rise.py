"""Is there growth to look for? Told from the levels alone, at every sample, before anything costs time.

A level has risen when it is above where the rise began by what matters a step, by at least some kilobytes, and went up at
``_TIMES`` samples on the way: what is built once, or an allocator that asks for its next few megabytes, makes one step up. Of
resident memory, which comes in pages and for many reasons, more is asked: it rises at half of the samples. A rise begins anew
at every sample that is not above its beginning, so that growth which begins late, or after a fall, is seen as soon.
"""

from __future__ import annotations

from dataclasses import dataclass

from memfit.observe.leak_sources import FLOOR, Samples

_TIMES = 3
_LEAST = 8 * FLOOR
_AT_ONCE = 4 * FLOOR
"""Bytes a step for which two samples in a row are enough."""
_TIMES_RESIDENT, _LEAST_RESIDENT, _SHARE_RESIDENT = 8, 256 << 10, 0.5


@dataclass
class Rise:
    """One level, since ``step``, when it was at ``level`` bytes. ``last``: its last sample, one of ``seen``, of which it was
    higher than the one before ``times`` times.

    >>> rise = Rise(0, 0)
    >>> [rise.goes_on(step, 4096 * step) for step in range(1, 5)]
    [False, False, True, True]
    >>> rise = Rise(0, 0)
    >>> any(rise.goes_on(step, 1 << 20) for step in range(1, 500))
    False
    """

    step: int
    level: int
    resident: bool = False
    last: int = 0
    seen: int = 0
    times: int = 0

    def __post_init__(self) -> None:
        self.last = self.level

    def goes_on(self, step: int, level: int) -> bool:
        """The next sample; whether it has risen."""
        gained = level - self.level
        if gained < FLOOR * max(1, step - self.step):
            self.step, self.level, self.last, self.seen, self.times = step, level, level, 0, 0
            return False
        self.seen += 1
        self.times += level - self.last >= FLOOR
        self.last = level
        if self.resident:
            often = self.times >= max(_TIMES_RESIDENT, _SHARE_RESIDENT * self.seen)
            return often and gained >= _LEAST_RESIDENT
        return self.times >= _TIMES and gained >= _LEAST


def rises(samples: Samples, number: int) -> bool:
    """Whether plainly more was held at each of the last ``number`` samples than at the one before."""
    if len(samples.step) < number:
        return False
    steps = samples.step[-number:]
    held = [heap + python for heap, python in zip(samples.heap[-number:], samples.python[-number:], strict=True)]
    return all(held[k] - held[k - 1] >= _AT_ONCE * max(1, steps[k] - steps[k - 1]) for k in range(1, number))
