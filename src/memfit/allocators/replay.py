"""Many policies over one trace, compared the same way: what each reserves, where its bytes go, and the least it runs on.

``POLICIES`` are the ones that people know, by the names that the command line takes. Of each: a replay without limit,
with the bytes after every event, and the smallest capacity that it completes under, found by bisection::

    live peak                         reserved peak without limit
    |------------ fails ------------|--- completes ---|            a run that completes under c reserved some r <= c, and
                                    ^ smallest                     would have gone the same way under r: so r is next

The answer is verified by construction: a replay completed there, and one failed a step below it (or the step below is
less than the live peak). Completion is not monotone in theory, since what an allocator gives back depends on the
capacity; a smaller capacity may work by luck. Step: 1/4096 of the range at most, at least 512 bytes.
Cost: about fourteen replays a policy.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memfit.allocators.bfc import BfcPolicy
from memfit.allocators.buddy import BuddyPolicy
from memfit.allocators.caching import CachingPolicy
from memfit.allocators.caching_settings import CachingSettings
from memfit.allocators.fits import FitPolicy
from memfit.allocators.onnx_arena import OnnxArenaPolicy
from memfit.allocators.policy import Policy, Replay
from memfit.allocators.size_classes import SizeClassPolicy
from memfit.errors import TraceError
from memfit.ir.requests import Requests

POLICIES: Mapping[str, Policy] = {
    "torch": CachingPolicy(),
    "torch-expandable": CachingPolicy(CachingSettings(expandable_segments=True)),
    "bfc": BfcPolicy(),
    "onnx-arena": OnnxArenaPolicy(),
    "onnx-arena-exact": OnnxArenaPolicy(same_as_requested=True),
    "first-fit": FitPolicy("first"),
    "best-fit": FitPolicy("best"),
    "worst-fit": FitPolicy("worst"),
    "next-fit": FitPolicy("next"),
    "buddy": BuddyPolicy(),
    "size-classes": SizeClassPolicy(),
}
STEPS = 4096
SMALLEST_STEP = 512

Progress = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class Result:
    """What one policy did. ``key``: its name on the command line, ``policy.name`` what people call it.

    ``unlimited``: the replay without a limit, with series. ``smallest_capacity``: bytes; ``tight``: the replay there.
    ``at_capacity``: the replay under the capacity asked about, or None.
    """

    key: str
    policy: Policy
    unlimited: Replay
    smallest_capacity: int
    tight: Replay
    at_capacity: Replay | None = None

    @property
    def internal(self) -> float:
        """1 - live / allocated at the reserved peak: lost to rounding."""
        return _share(self.at_peak[0], self.at_peak[1])

    @property
    def external(self) -> float:
        """1 - allocated / reserved at the reserved peak: reserved and in nobody's use."""
        return _share(self.at_peak[1], self.at_peak[2])

    @property
    def at_peak(self) -> tuple[int, int, int]:
        """Live, allocated and reserved bytes when most is live while reserved is at its peak."""
        series = self.unlimited.series
        if series is None or not len(series.reserved):
            return 0, 0, 0
        event = int(np.argmax(np.where(series.reserved == self.unlimited.peak_reserved, series.live, -1)))
        return int(series.live[event]), int(series.allocated[event]), int(series.reserved[event])

    @property
    def seconds_per_event(self) -> float:
        """CPU seconds of the replay at the smallest capacity, by event."""
        series = self.unlimited.series
        return self.tight.seconds / len(series.live) if series is not None and len(series.live) else 0.0


def policies_named(names: Sequence[str] | None) -> dict[str, Policy]:
    """The policies of these names; all without names.

    Raises:
        TraceError: there is none of a name.
    """
    if names is None:
        return dict(POLICIES)
    found = {}
    for name in names:
        if name not in POLICIES:
            close = difflib.get_close_matches(name, POLICIES, 1, 0.6)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(POLICIES)}"
            raise TraceError("--policies", f"there is no policy {name!r}; {hint}")
        found[name] = POLICIES[name]
    return found


def compare(
    requests: Requests, policies: Mapping[str, Policy], capacity: int | None = None, progress: Progress | None = None
) -> tuple[Result, ...]:
    """Replay ``requests`` under each policy; with ``capacity`` (bytes) also under that. Smallest capacity first.

    Raises:
        TraceError: requests that no program can have made.
    """
    results = []
    for number, (key, policy) in enumerate(policies.items()):
        if progress is not None:
            progress(f"replaying {key}", number, len(policies))
        unlimited = policy.replay(requests, series=True)
        smallest, tight = smallest_capacity(policy, requests, unlimited)
        there = None if capacity is None else policy.replay(requests, capacity)
        results.append(Result(key, policy, unlimited, smallest, tight, there))
    return tuple(sorted(results, key=lambda r: (r.smallest_capacity, r.tight.driver_calls, r.unlimited.peak_reserved)))


def smallest_capacity(policy: Policy, requests: Requests, unlimited: Replay | None = None) -> tuple[int, Replay]:
    """The smallest capacity in bytes that bisection finds, and the replay under it. See the module text."""
    best = policy.replay(requests) if unlimited is None else unlimited
    high, low = best.peak_reserved, best.peak_live - 1
    step = max(SMALLEST_STEP, (high - low) // STEPS)
    while high - low > step:
        middle = (low + high) // 2
        found = policy.replay(requests, middle)
        if found.failed is None:
            high, best = min(middle, found.peak_reserved), found
        else:
            low = middle
    return high, policy.replay(requests, high)


def _share(part: int, whole: int) -> float:
    return 1.0 - part / whole if whole else 0.0
