"""The searches on one Instance, component by component: a lower peak, a placement below a limit, a proof.

Each component is searched only as long as it stands above what the others need anyway. Small components go to the exact
search, large ones to the local search first, and what time is left to the other of the two.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memfit.planners.bounds import load_of
from memfit.planners.problem import Instance, Ints
from memfit.planners.reduce import Part, join, peak_of, split

Progress = Callable[[str, float], None]
_LARGE = 3_000  # rows of a component above which the local search comes first
_FIRST_SHARE = 0.8  # of the time, for the search that comes first
_CONFLICTS = 4_000_000  # pairs of pieces alive together up to which the exact search, which lists them, is tried


def _search(name: str) -> Any:
    """One of the searches, or None where this build has none of that name."""
    try:
        return importlib.import_module(f"memfit.planners.{name}")
    except ImportError:
        return None


class Clock:
    """CPU seconds that are left of a limit."""

    def __init__(self, limit: float) -> None:
        self.begin, self.limit = time.process_time(), limit

    @property
    def spent(self) -> float:
        """CPU seconds since the clock was made."""
        return time.process_time() - self.begin

    @property
    def left(self) -> float:
        """CPU seconds that are left, never below zero."""
        return max(0.0, self.limit - self.spent)


@dataclass
class _State:
    """A component, the best offsets known for it (in units), their peak and the proved bound (in bytes)."""

    part: Part
    offset: Ints
    peak: int
    bound: int


def conflicts(instance: Instance) -> int:
    """Pairs of pieces that are alive together. Cost: O(n log n)."""
    ended = np.searchsorted(np.sort(instance.piece_upper), instance.piece_lower, side="right")
    begun = np.searchsorted(np.sort(instance.piece_lower), instance.piece_upper, side="left")
    return int((begun - ended - 1).sum()) // 2


class Components:
    """The components of an Instance, each with the best placement known for it and what is proved about it."""

    def __init__(self, whole: Instance, starts: Sequence[Ints], clock: Clock, *, seed: int = 0, threads: int = 1,
                 progress: Progress | None = None) -> None:  # fmt: skip
        """``starts``: placements of the whole Instance in bytes, at least one; the best of each component is taken."""
        self.whole, self.clock, self.seed, self.threads, self.progress = whole, clock, seed, threads, progress
        self.states: list[_State] = []
        self.infeasible: tuple[int, ...] = ()
        for part in split(whole):
            best = min((start[part.rows] // part.unit for start in starts), key=lambda o: peak_of(part.instance, o))
            load = load_of(part.instance) * part.unit
            self.states.append(_State(part, best, peak_of(part.instance, best) * part.unit, load))

    @property
    def peak(self) -> int:
        """Highest byte in use, in bytes."""
        return max((state.peak for state in self.states), default=0)

    @property
    def bound(self) -> int:
        """Bytes that no placement of the Instance stays below."""
        return max((state.bound for state in self.states), default=0)

    @property
    def offset(self) -> Ints:
        """The best placement, in bytes of the whole Instance."""
        return join(len(self.whole), [s.part for s in self.states], [s.offset for s in self.states])

    def local(self, target: int, share: float = 1.0) -> None:
        """The local search on every component above ``target`` bytes, in ``share`` of the time that is left."""
        module = _search("large")
        if module is not None:
            self._each(lambda state, seconds: self._improve(module, state, target, seconds), target, share)

    def exact(self, target: int, share: float = 1.0) -> None:
        """The exact search for the least peak of every component above ``target`` bytes and above its own bound."""
        module = _search("exact")
        if module is not None:
            self._each(lambda state, seconds: self._minimise(module, state, target, seconds), target, share)

    def fit(self, limit: int, share: float = 1.0) -> None:
        """The exact search for a placement of each component below ``limit`` bytes, or a proof that there is none."""
        module = _search("exact")
        if module is not None:
            self._each(lambda state, seconds: self._place(module, state, limit, seconds), limit, share)

    def plan(self, names: Sequence[str]) -> list[str]:
        """The searches of ``names`` ("search", "exact") in the order in which they should run here."""
        known = [n for n in names if _search("large" if n == "search" else "exact") is not None]
        local_first = max((len(s.part.rows) for s in self.states), default=0) > _LARGE
        return sorted(known, reverse=local_first)

    def run(self, name: str, target: int, limit: int | None, last: bool) -> None:
        """One search, for the least peak (never below ``target``) or, with a ``limit``, for any peak up to it."""
        share = 1.0 if last else _FIRST_SHARE
        if name == "search":
            self.local(target if limit is None else limit, share)
        elif limit is None:
            self.exact(target, share)
        else:
            self.fit(limit, share)

    def _each(self, search: Callable[[_State, float], None], target: int, share: float) -> None:
        """Runs a search on the components above ``target``, furthest first, each with its share of the time."""
        end = self.clock.left * (1 - share)
        todo = sorted((s for s in self.states if s.peak > target), key=lambda s: (s.bound - s.peak, s.part.rows[0]))
        for index, state in enumerate(todo):
            needed = max(target, self.bound)
            if state.peak > needed and not self.infeasible and self.clock.left > end:
                search(state, (self.clock.left - end) / (len(todo) - index))

    def _keep(self, state: _State, offset: Ints | None) -> None:
        """Keeps offsets of a component (in units) if they are lower."""
        if offset is not None and (peak := peak_of(state.part.instance, offset) * state.part.unit) < state.peak:
            state.offset, state.peak = offset, peak

    def _say(self, phase: str) -> Callable[..., None]:
        """What the searches call when they found something; also where an interruption reaches Python."""

        def say(*_: object) -> None:
            if self.progress is not None:
                self.progress(phase, min(1.0, self.clock.spent / self.clock.limit if self.clock.limit else 1.0))

        return say

    def _improve(self, module: Any, state: _State, target: int, seconds: float) -> None:
        unit, instance = state.part.unit, state.part.instance
        goal = max(target, self.bound) // unit
        found = module.improve(instance, state.offset, target=goal, time_limit=seconds, seed=self.seed,
                               progress=self._say("local search"))  # fmt: skip
        self._keep(state, np.asarray(found, dtype=np.int64))

    def _minimise(self, module: Any, state: _State, target: int, seconds: float) -> None:
        unit, instance = state.part.unit, state.part.instance
        goal, begin = max(target, self.bound), self.clock.spent
        if state.peak <= state.bound or conflicts(instance) > _CONFLICTS:
            return
        if goal > state.bound:
            tried = module.place(instance, goal // unit, time_limit=seconds / 2, seed=self.seed, threads=self.threads)
            self._keep(state, tried.offset)
            if state.peak <= goal:
                return
        left = max(0.0, seconds - (self.clock.spent - begin))
        found = module.minimise(instance, time_limit=left, incumbent=state.offset, seed=self.seed,
                                progress=self._say("exact search"))  # fmt: skip
        self._keep(state, found.offset)
        state.bound = max(state.bound, found.bound * unit)

    def _place(self, module: Any, state: _State, limit: int, seconds: float) -> None:
        unit, instance = state.part.unit, state.part.instance
        if conflicts(instance) > _CONFLICTS:
            return
        tried = module.place(instance, limit // unit, time_limit=seconds, seed=self.seed, threads=self.threads)
        self._keep(state, tried.offset)
        if tried.status == "infeasible":
            state.bound = max(state.bound, (limit // unit + 1) * unit)
            rows = state.part.rows.tolist()
            if hasattr(module, "explain"):
                rows = [rows[i] for i in module.explain(instance, limit // unit, time_limit=self.clock.limit)]
            self.infeasible = tuple(rows)
