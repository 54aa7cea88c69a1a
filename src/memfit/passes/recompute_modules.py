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

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

_EVALUATIONS = 1200
_STARTS = 4
_Ints = npt.NDArray[np.int64]


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
    def _rows(self) -> tuple[_Ints, ...]:
        """Handles, then inputs of calls, as columns: storage, call (the one around, for an input), start, stop, owner.

        ``owner``: the call whose input it is, -1 for a handle. Rows are sorted by storage.
        """
        rows = [(h.storage, h.call, h.packed, h.released, -1) for h in self.handles]
        for number, call in enumerate(self.calls):
            rows += [(s, call.parent, call.start, self.windows[number][1], number) for s in call.inputs]
        table = np.array(sorted(rows), dtype=np.int64).reshape(-1, 5)
        return tuple(table.T)

    @cached_property
    def _columns(self) -> tuple[_Ints, _Ints, _Ints, _Ints, _Ints]:
        """Sizes, module of each call, first window event of each call, transient of each call, the plain curve."""
        sizes = np.array(self.sizes, dtype=np.int64)
        modules = np.array([call.module for call in self.calls], dtype=np.int64)
        windows = np.array([window for window, _ in self.windows], dtype=np.int64)
        transients = np.array([call.transient for call in self.calls], dtype=np.int64)
        return sizes, modules, windows, transients, np.asarray(self.peaks, dtype=np.int64)

    def seconds_of(self, chosen: Iterable[int]) -> float:
        """Extra seconds of recomputing these modules."""
        return sum(self.seconds[module] for module in chosen)

    def curve(self, chosen: frozenset[int]) -> _Ints:
        """Projected bytes over the events when these modules are recomputed. Cost: a sort of the handles."""
        _, modules, windows, transients, peaks = self._columns
        change = self._alive(chosen) - self._plain_alive
        result = peaks + change
        if chosen and len(self.calls):
            again = np.isin(modules, list(chosen)) & (windows < len(peaks))
            at = windows[again]
            np.maximum.at(result, at, np.asarray(self.lives, dtype=np.int64)[at] + change[at] + transients[again])
        return result

    @cached_property
    def _plain_alive(self) -> _Ints:
        return self._alive(frozenset())

    def _alive(self, chosen: frozenset[int]) -> _Ints:
        """Bytes of saved tensors and kept inputs over the events: each storage counts while any row of it is open."""
        storage, call, start, stop, owner = self._rows
        sizes, _, windows, _, peaks = self._columns
        around = np.array([*self._around(chosen), -1], dtype=np.int64)  # call -1 reads the last place
        inside = np.array([*(c.module in chosen for c in self.calls), True])
        here = around[call]
        start = np.where(here >= 0, windows[here] if len(windows) else start, start)
        open_rows = inside[owner] & (start < stop)
        storage, start, stop = storage[open_rows], start[open_rows], stop[open_rows]
        if not len(storage):
            return np.zeros(len(peaks), dtype=np.int64)
        order = np.lexsort((start, storage))
        storage, start, stop = storage[order], start[order], stop[order]
        far = len(peaks) + 1
        reached = np.maximum.accumulate(stop + storage * far)
        start[1:] = np.maximum(start[1:], np.minimum(reached[:-1] - storage[1:] * far, far))
        new = start < stop
        steps = np.zeros(len(peaks) + 1, dtype=np.int64)
        np.add.at(steps, start[new], sizes[storage[new]])
        np.subtract.at(steps, stop[new], sizes[storage[new]])
        return np.cumsum(steps)[:-1]

    def _around(self, chosen: frozenset[int]) -> list[int]:
        """For each call the innermost recomputed call that it is, or is inside of; -1: none."""
        around: list[int] = []
        for number, call in enumerate(self.calls):
            around.append(number if call.module in chosen else around[call.parent] if call.parent >= 0 else -1)
        return around

    def gains(self, event: int, chosen: frozenset[int]) -> dict[int, int]:
        """Bytes by which also recomputing each module would lower the curve at ``event``; one pass over the handles."""
        around = self._around(chosen)
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
        for storage, inside in holders.items():
            for number in inside:
                if event < self.windows[number][0]:
                    module = self.calls[number].module
                    gain[module] = gain.get(module, 0) + self.sizes[storage]
        for number, call in enumerate(self.calls):
            if call.module in gain and call.start <= event < self.windows[number][0]:
                for storage in set(call.inputs):
                    if storage not in holders or number in holders[storage]:
                        gain[call.module] -= self.sizes[storage]
        return {module: saved for module, saved in gain.items() if saved > 0 and module not in chosen}


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
    starts = [frozenset(m for m in search.allowed if profile.kinds[m] == kind) for kind in sorted(set(profile.kinds))]
    starts = [members for members in starts if len(members) > 1]
    starts.sort(key=lambda members: search.choice(members).peak)
    found = [search.improved(search.grown(start)) for start in [frozenset[int](), *starts[:_STARTS]]]
    return min(found, key=lambda choice: (not choice.kept, choice.seconds if choice.kept else choice.peak, choice.peak))


class _Search:
    def __init__(self, profile: ModuleProfile, target: int, refused: frozenset[int]) -> None:
        self.profile, self.target, self.left = profile, target, _EVALUATIONS
        self.allowed = frozenset(call.module for call in profile.calls) - refused
        self.known: dict[frozenset[int], tuple[Choice, int, int]] = {}
        self.family: dict[int, set[int]] = {}
        for chain in profile.chains:
            for outer in chain:
                a, b = profile.calls[chain[0]].module, profile.calls[outer].module
                self.family.setdefault(a, set()).add(b)
                self.family.setdefault(b, set()).add(a)

    def looked(self, chosen: frozenset[int]) -> tuple[Choice, int, int]:
        """A choice, the event of its peak, and how many events stand at the peak."""
        if chosen not in self.known:
            self.left -= 1
            curve = self.profile.curve(chosen)
            event = int(curve.argmax())
            peak = int(curve[event])
            choice = Choice(chosen, peak, self.profile.seconds_of(chosen), peak <= self.target)
            self.known[chosen] = (choice, event, int((curve == peak).sum()))
        return self.known[chosen]

    def choice(self, chosen: frozenset[int]) -> Choice:
        return self.looked(chosen)[0]

    def grown(self, chosen: frozenset[int]) -> Choice:
        """Add the choice with most bytes saved at the peak per second, until the target is kept or nothing helps."""
        best, event, wide = self.looked(chosen)
        while not best.kept:
            ranked = [
                (saved / (self.profile.seconds[module] + 1e-7), module)
                for module, saved in self.profile.gains(event, best.modules).items()
                if module in self.allowed
            ]
            for _, module in sorted(ranked, reverse=True):
                tried, at, width = self.looked(best.modules | {module})
                if (tried.peak, width) < (best.peak, wide):
                    best, event, wide = tried, at, width
                    break
            else:
                break
        return best

    def improved(self, choice: Choice) -> Choice:
        """Drop and exchange choices while the target stays kept (or the peak does not rise) and time falls.

        A choice is exchanged for modules around it, inside it, or of its own kind.
        """
        limit, best = max(self.target, choice.peak), choice
        changed = True
        while changed and self.left > 0:
            changed = False
            for module in sorted(best.modules, key=lambda m: -self.profile.seconds[m]):
                without = best.modules - {module}
                for option in (without, *(without | {other} for other in self._cheaper(module) - without)):
                    tried = self.choice(option)
                    if tried.peak <= limit and tried.seconds < best.seconds:
                        best, changed = tried, True
                        break
                    if self.left <= 0:
                        break
                if changed or self.left <= 0:
                    break
        return best

    def _cheaper(self, module: int) -> frozenset[int]:
        profile = self.profile
        kin = self.family.get(module, set()) | {m for m in self.allowed if profile.kinds[m] == profile.kinds[module]}
        return frozenset(m for m in kin & self.allowed if profile.seconds[m] < profile.seconds[module])
