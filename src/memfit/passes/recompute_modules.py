"""Choose which modules to recompute in backward so that a step's peak keeps a target, at the least extra time.

For programs that are no single graph, one profiled run says what each module call saves and when. A **handle** is one
tensor saved for backward; a recomputed call keeps its inputs and has its handles only from its **window**, the first
moment at which backward needs one of them::

    event      0 . . . . . forward . . . . . . . | . . . . . backward . . . . . . N
    plain          [packed ------------------------------------------- released)
    recomputed     .                                    [window ------- released)
    its inputs  [start ------------------------------------------------ released)

Choices nest: inside a recomputed call, an inner recomputed call has its own window, and its inputs live only from the
outer one's. The curve of a choice is the measured plain curve plus the difference of these intervals; what the model
leaves out (temporaries of the recomputation that overlap) is found by measuring and moving the target.

Search: from several starts (nothing; every instance of one class), take the choice that saves most bytes per second at
the present peak, until the target is kept; then drop and exchange choices while that is cheaper. Not optimal; a brute
force twin stands in the tests. Cost: O(events + handles) per evaluation, a few thousand evaluations at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

_EVALUATIONS = 3000


@dataclass(frozen=True, slots=True)
class Handle:
    """One saved tensor: its storage, the call that saved it (-1: none), and its half-open interval of events."""

    storage: int
    call: int
    packed: int
    released: int


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """One call. ``transient``: bytes by which its forward peaks above what is alive when it ends."""

    module: int
    parent: int
    start: int
    end: int
    inputs: tuple[int, ...]
    transient: int = 0


@dataclass(frozen=True)
class ModuleProfile:
    """A profiled step. ``lives``, ``peaks``: bytes at the start of each event interval, and at most inside it.

    ``sizes``: bytes per storage, 0 for what lives anyway. ``modules`` and ``seconds``: name, kind and forward time (sum
    over calls) of each candidate. ``parent`` of a call comes before it.
    """

    lives: tuple[int, ...]
    peaks: tuple[int, ...]
    sizes: tuple[int, ...]
    handles: tuple[Handle, ...]
    calls: tuple[ModuleCall, ...]
    modules: tuple[str, ...]
    kinds: tuple[str, ...]
    seconds: tuple[float, ...]

    @cached_property
    def chains(self) -> tuple[tuple[int, ...], ...]:
        """For each call itself and the calls around it, innermost first."""
        chains: list[tuple[int, ...]] = []
        for number, call in enumerate(self.calls):
            chains.append((number, *(chains[call.parent] if call.parent >= 0 else ())))
        return tuple(chains)

    @cached_property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """For each call the first event at which backward needs a handle of it or inside it, and the last release."""
        events = len(self.peaks)
        first, last = [events] * len(self.calls), [0] * len(self.calls)
        for handle in self.handles:
            for call in self.chains[handle.call] if handle.call >= 0 else ():
                first[call] = min(first[call], handle.released - 1)
                last[call] = max(last[call], handle.released)
        return tuple(zip(first, last, strict=True))

    @cached_property
    def plain(self) -> dict[int, list[tuple[int, int]]]:
        """Intervals of each storage in the plain step."""
        spans: dict[int, list[tuple[int, int]]] = {}
        for handle in self.handles:
            spans.setdefault(handle.storage, []).append((handle.packed, handle.released))
        return spans

    def seconds_of(self, chosen: Iterable[int]) -> float:
        """Extra seconds of recomputing these modules."""
        return sum(self.seconds[module] for module in chosen)

    def curve(self, chosen: frozenset[int]) -> npt.NDArray[np.int64]:
        """Projected bytes over the events when these modules are recomputed."""
        change = np.zeros(len(self.peaks) + 1, dtype=np.int64)
        for storage, (before, after) in self._spans(chosen).items():
            size = self.sizes[storage]
            for start, stop in _union(before):
                change[start] -= size
                change[stop] += size
            for start, stop in _union(after):
                change[start] += size
                change[stop] -= size
        change = np.cumsum(change)[:-1]
        result = np.asarray(self.peaks, dtype=np.int64) + change
        for number, call in enumerate(self.calls):
            window = self.windows[number][0]
            if call.module in chosen and window < len(result):
                result[window] = max(result[window], self.lives[window] + change[window] + call.transient)
        return result

    def _spans(self, chosen: frozenset[int]) -> dict[int, tuple[list[tuple[int, int]], list[tuple[int, int]]]]:
        """Of each storage that a choice touches: intervals before and after."""
        around = [next((c for c in chain if self.calls[c].module in chosen), -1) for chain in self.chains]
        after: dict[int, list[tuple[int, int]]] = {}
        touched: set[int] = set()
        for handle in self.handles:
            inner = around[handle.call] if handle.call >= 0 else -1
            start = handle.packed if inner < 0 else self.windows[inner][0]
            if inner >= 0:
                touched.add(handle.storage)
            after.setdefault(handle.storage, []).append((start, handle.released))
        for number, call in enumerate(self.calls):
            if call.module not in chosen or self.windows[number][1] == 0:
                continue
            outer = around[call.parent] if call.parent >= 0 else -1
            start = call.start if outer < 0 else self.windows[outer][0]
            for storage in call.inputs:
                touched.add(storage)
                after.setdefault(storage, []).append((start, self.windows[number][1]))
        return {s: (self.plain.get(s, []), after[s]) for s in touched if self.sizes[s]}

    def gains(self, event: int, chosen: frozenset[int]) -> dict[int, int]:
        """Bytes by which also recomputing each module would lower the curve at ``event``; one pass over the handles."""
        around = [next((c for c in chain if self.calls[c].module in chosen), -1) for chain in self.chains]
        holders: dict[int, set[int]] = {}
        for handle in self.handles:
            if self.sizes[handle.storage] and event < handle.released:
                inner = around[handle.call] if handle.call >= 0 else -1
                start = handle.packed if inner < 0 else self.windows[inner][0]
                if start <= event:
                    here = set(self.chains[handle.call]) if handle.call >= 0 else set()
                    seen = holders.get(handle.storage)
                    holders[handle.storage] = here if seen is None else seen & here
        for number, call in enumerate(self.calls):
            if call.module in chosen:
                outer = around[call.parent] if call.parent >= 0 else -1
                start = call.start if outer < 0 else self.windows[outer][0]
                if start <= event < self.windows[number][1]:
                    for storage in call.inputs:
                        outside = set(self.chains[number][1:])
                        holders[storage] = holders.get(storage, outside) & outside
        gain: dict[int, int] = {}
        for storage, calls in holders.items():
            for call in calls:
                if event < self.windows[call][0]:
                    module = self.calls[call].module
                    gain[module] = gain.get(module, 0) + self.sizes[storage]
        for number, call in enumerate(self.calls):
            if call.module in gain and call.start <= event < self.windows[number][0]:
                for storage in set(call.inputs):
                    if storage not in holders or number in holders[storage]:
                        gain[call.module] -= self.sizes[storage]
        return {module: saved for module, saved in gain.items() if saved > 0 and module not in chosen}


def _union(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    open_start, open_stop = -1, -1
    for start, stop in sorted(spans):
        if start >= stop:
            continue
        if start > open_stop:
            if open_stop >= 0:
                yield open_start, open_stop
            open_start, open_stop = start, stop
        else:
            open_stop = max(open_stop, stop)
    if open_stop >= 0:
        yield open_start, open_stop


@dataclass(frozen=True, slots=True)
class Choice:
    """Modules to recompute, the projected peak (bytes), the extra seconds, and whether the target is kept."""

    modules: frozenset[int]
    peak: int
    seconds: float
    kept: bool


def choose_modules(profile: ModuleProfile, target: int, refused: frozenset[int] = frozenset()) -> Choice:
    """The cheapest choice found whose projected peak is at most ``target`` bytes; else the one with the lowest peak.

    ``refused`` modules are never chosen. See the module text for the method and its cost.
    """
    search = _Search(profile, target, refused)
    starts = [frozenset[int]()]
    for kind in sorted(set(profile.kinds)):
        members = frozenset(m for m in search.candidates if profile.kinds[m] == kind)
        if len(members) > 1:
            starts.append(members)
    found = [search.improved(search.grown(start)) for start in starts]
    return min(found, key=lambda choice: (not choice.kept, choice.seconds if choice.kept else choice.peak, choice.peak))


class _Search:
    def __init__(self, profile: ModuleProfile, target: int, refused: frozenset[int]) -> None:
        self.profile, self.target, self.left = profile, target, _EVALUATIONS
        saving = {chain_call.module for chain_call in profile.calls}
        self.candidates = [m for m in range(len(profile.modules)) if m in saving and m not in refused]
        self.allowed = frozenset(self.candidates)
        self.known: dict[frozenset[int], npt.NDArray[np.int64]] = {}

    def curve(self, chosen: frozenset[int]) -> npt.NDArray[np.int64]:
        if chosen not in self.known:
            self.left -= 1
            self.known[chosen] = self.profile.curve(chosen)
        return self.known[chosen]

    def choice(self, chosen: frozenset[int]) -> Choice:
        peak = int(self.curve(chosen).max())
        return Choice(chosen, peak, self.profile.seconds_of(chosen), peak <= self.target)

    def grown(self, chosen: frozenset[int]) -> Choice:
        """Add the choice with most bytes saved at the peak per second, until the target is kept or nothing helps."""
        best = self.choice(chosen)
        while not best.kept and self.left > -_EVALUATIONS:
            curve = self.curve(best.modules)
            event = int(curve.argmax())
            ranked = [
                (saved / (self.profile.seconds[module] + 1e-7), module)
                for module, saved in self.profile.gains(event, best.modules).items()
                if module in self.allowed
            ]
            for _, module in sorted(ranked, reverse=True):
                tried = self.choice(best.modules | {module})
                if tried.peak < best.peak or (tried.peak == best.peak and self._flatter(tried, best)):
                    best = tried
                    break
            else:
                break
        return best

    def _flatter(self, a: Choice, b: Choice) -> bool:
        """Whether ``a`` has fewer events at the peak than ``b``."""
        return int((self.curve(a.modules) == a.peak).sum()) < int((self.curve(b.modules) == b.peak).sum())

    def improved(self, choice: Choice) -> Choice:
        """Drop and exchange choices while the target stays kept (or the peak does not rise) and time falls."""
        limit = max(self.target, choice.peak)
        best = choice
        changed = True
        while changed and self.left > 0:
            changed = False
            for module in sorted(best.modules, key=lambda m: -self.profile.seconds[m]):
                without = best.modules - {module}
                cheaper = [m for m in self.candidates if self.profile.seconds[m] < self.profile.seconds[module]]
                options = [without, *(without | {m} for m in cheaper if m not in without)]
                for option in options[: 1 + max(0, self.left // 50)]:
                    tried = self.choice(option)
                    if tried.peak <= limit and tried.seconds < best.seconds:
                        best, changed = tried, True
                        break
                if changed:
                    break
        return best
