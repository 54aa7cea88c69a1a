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
from memfit.planners.reduce import Part, split

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
    """A component, the best offsets known for it, their peak and the proved bound, all in bytes."""

    part: Part
    size: Ints
    offset: Ints
    peak: int
    bound: int

    @property
    def forms(self) -> list[Part]:
        """What the searches are given, the easiest first: rounded up to the alignment, if that is a form, and exactly."""
        return [self.part.rounded, self.part] if self.part.rounded is not None else [self.part]


def conflicts(instance: Instance) -> int:
    """Pairs of pieces that are alive together. Cost: O(n log n)."""
    ended = np.searchsorted(np.sort(instance.piece_upper), instance.piece_lower, side="right")
    begun = np.searchsorted(np.sort(instance.piece_lower), instance.piece_upper, side="left")
    return int((begun - ended - 1).sum()) // 2


def _windowed(instance: Instance) -> bool:
    """Whether some piece uses only a part of its buffer: the exact search then proves nothing, it takes it as whole."""
    size = np.repeat(instance.size, np.diff(instance.start))
    return bool((instance.piece_low > 0).any() or (instance.piece_high < size).any())


class Components:
    """The components of an Instance, each with the best placement known for it and what is proved about it."""

    def __init__(self, whole: Instance, starts: Sequence[Ints], clock: Clock, *, seed: int = 0, threads: int = 1,
                 progress: Progress | None = None) -> None:  # fmt: skip
        """``starts``: placements of the whole Instance in bytes, at least one; the best of each component is taken."""
        self.whole, self.clock, self.seed, self.threads, self.progress = whole, clock, seed, threads, progress
        self.states: list[_State] = []
        self.infeasible: tuple[int, ...] = ()
        for part in split(whole):
            size = whole.size[part.rows]
            offset = min((start[part.rows] for start in starts), key=lambda o: int((o + size).max()))
            state = _State(part, size, offset, int((offset + size).max()), load_of(part.instance) * part.unit)
            self.states.append(state)

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
        out = np.zeros(len(self.whole), dtype=np.int64)
        for state in self.states:
            out[state.part.rows] = state.offset
        return out

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

    def _keep(self, state: _State, form: Part, offset: Ints | None) -> None:
        """Keeps offsets of a form of a component (in its units) if they are lower."""
        if offset is None:
            return
        offset = np.asarray(offset, dtype=np.int64) * form.unit
        peak = int((offset + state.size).max())
        if peak < state.peak:
            state.offset, state.peak = offset, peak

    def _say(self, phase: str) -> Callable[..., None]:
        """What the searches call when they found something; also where an interruption reaches Python."""

        def say(*_: object) -> None:
            if self.progress is not None:
                self.progress(phase, min(1.0, self.clock.spent / self.clock.limit if self.clock.limit else 1.0))

        return say

    def _improve(self, module: Any, state: _State, target: int, seconds: float) -> None:
        form, goal = state.forms[0], max(target, self.bound)
        found = module.improve(form.instance, state.offset // form.unit, target=-(-goal // form.unit), time_limit=seconds,
                               seed=self.seed, progress=self._say("local search"))  # fmt: skip
        self._keep(state, form, found)

    def _minimise(self, module: Any, state: _State, target: int, seconds: float) -> None:
        begin = self.clock.spent
        for form in state.forms:
            goal, left = max(target, self.bound), max(0.0, seconds - (self.clock.spent - begin))
            if state.peak <= max(goal, state.bound) or conflicts(form.instance) > _CONFLICTS:
                return
            if goal > state.bound:
                tried = module.place(form.instance, goal // form.unit, time_limit=left / 2, seed=self.seed,
                                     threads=self.threads)  # fmt: skip
                self._keep(state, form, tried.offset)
                left = max(0.0, seconds - (self.clock.spent - begin))
            if state.peak > goal:
                found = module.minimise(form.instance, time_limit=left, incumbent=state.offset // form.unit,
                                        seed=self.seed, progress=self._say("exact search"))  # fmt: skip
                self._keep(state, form, found.offset)
                lost = 0 if form is state.part else int((form.instance.size * form.unit - state.size).max())
                if not _windowed(form.instance):
                    state.bound = max(state.bound, found.bound * form.unit - lost)

    def _place(self, module: Any, state: _State, limit: int, seconds: float) -> None:
        begin = self.clock.spent
        for form in state.forms:
            left = max(0.0, seconds - (self.clock.spent - begin))
            if state.peak <= limit or conflicts(form.instance) > _CONFLICTS:
                return
            tried = module.place(
                form.instance, limit // form.unit, time_limit=left, seed=self.seed, threads=self.threads
            )
            self._keep(state, form, tried.offset)
            proved = tried.status == "infeasible" and not _windowed(form.instance)
            if proved and (form is state.part or limit % form.step == 0):
                self._prove(module, state, form, limit)
                return

    def _prove(self, module: Any, state: _State, form: Part, limit: int) -> None:
        """Takes down that a component does not fit, and which of its rows alone do not."""
        state.bound = max(state.bound, (limit // state.part.unit + 1) * state.part.unit)
        rows = state.part.rows.tolist()
        if hasattr(module, "explain"):
            rows = [rows[i] for i in module.explain(form.instance, limit // form.unit, time_limit=self.clock.limit)]
        self.infeasible = tuple(rows)
