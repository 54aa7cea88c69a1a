"""The searches on one Instance, component by component: a lower peak, a placement below a limit, a proof.

A component is searched only while it stands above what the Instance needs anyway. ``search`` is the local search
(:mod:`memfit.planners.large`), ``exact`` the complete one (:mod:`memfit.planners.exact`), which lists all pairs of
pieces alive together and is left out where these are too many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from memfit.planners import exact, large
from memfit.planners.bounds import load_of
from memfit.planners.problem import Instance, Ints
from memfit.planners.reduce import Part, components, part_of

Progress = Callable[[str, float], None]
_UNPLACED = 2**62
_EXPLAIN = 1.0  # seconds at least to find out which rows alone do not fit
_CONFLICTS = 4_000_000  # pairs of pieces alive together up to which the exact search, which lists them, is tried


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
    """A component, the best offsets known for it (None: none), their peak and the proved bound, all in bytes."""

    part: Part
    size: Ints
    offset: Ints | None
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


class Components:
    """The components of an Instance, each with the best placement known for it and what is proved about it."""

    def __init__(self, whole: Instance, starts: Sequence[Ints], clock: Clock, *, seed: int = 0, threads: int = 1,
                 progress: Progress | None = None) -> None:  # fmt: skip
        """``starts``: placements of the whole Instance in bytes; of each component the best is taken, if there are any."""
        self.whole, self.clock, self.seed, self.threads, self.progress = whole, clock, seed, threads, progress
        self.load = load_of(whole)
        self.infeasible: tuple[int, ...] = ()
        self.start = starts[0].copy() if starts else np.zeros(len(whole), dtype=np.int64)
        self.states: list[_State] = []
        order, begins = components(whole)
        ends = [*begins.tolist(), len(whole)]
        tops = [np.maximum.reduceat((start + whole.size)[order], begins) for start in starts]
        best = np.argmin(tops, axis=0).tolist() if starts else [-1] * len(begins)
        for index, chosen in enumerate(best):
            rows = np.sort(order[ends[index] : ends[index + 1]])
            if chosen >= 0:
                self.start[rows] = starts[chosen][rows]
                if tops[chosen][index] <= self.load:
                    continue
            part = part_of(whole, rows)
            peak = int(tops[chosen][index]) if chosen >= 0 else _UNPLACED
            offset = self.start[rows] if chosen >= 0 else None
            bound = load_of(part.instance) * part.unit
            self.states.append(_State(part, whole.size[rows], offset, peak, bound))

    @property
    def peak(self) -> int:
        """Highest byte in use, in bytes, or more where the load is more."""
        return max((self.load, *(state.peak for state in self.states)))

    @property
    def bound(self) -> int:
        """Bytes that no placement of the Instance stays below."""
        return max((self.load, *(state.bound for state in self.states)))

    @property
    def offset(self) -> Ints:
        """The best placement, in bytes of the whole Instance."""
        out = self.start.copy()
        for state in self.states:
            if state.offset is not None:
                out[state.part.rows] = state.offset
        return out

    def exact_is_able(self) -> bool:
        """Whether every component that could still be lower is small enough for the exact search."""
        return all(conflicts(s.part.instance) <= _CONFLICTS for s in self.states if s.peak > self.bound)

    def run(self, name: str, target: int, limit: int | None, share: float) -> None:
        """A search in a share of the time left: for the least peak down to ``target``, or any up to ``limit``."""
        if name == "search":
            self._each(self._improve, target if limit is None else limit, share)
        elif limit is None:
            self._each(self._minimise, target, share)
        else:
            self._each(self._place, limit, share)

    def _each(self, search: Callable[[_State, int, float], None], target: int, share: float) -> None:
        """Runs a search on the components above ``target``, furthest first, each with its share of the time."""
        end = self.clock.left * (1 - share)
        todo = sorted((s for s in self.states if s.peak > target), key=lambda s: (s.bound - s.peak, s.part.rows[0]))
        for index, state in enumerate(todo):
            unplaced = state.offset is None
            wanted = state.peak > max(target, self.bound) and not self.infeasible and self.clock.left > end
            if unplaced or wanted:
                search(state, target, max(0.0, self.clock.left - end) / (len(todo) - index))

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

    def _improve(self, state: _State, target: int, seconds: float) -> None:
        form, say = state.forms[0], self._say("local search")
        goal = -(-max(target, self.bound) // form.unit)
        if state.offset is None:
            found = large.place(form.instance, time_limit=seconds, seed=self.seed, target=goal, progress=say)
        else:
            start = state.offset // form.unit
            found = large.improve(form.instance, start, target=goal, time_limit=seconds, seed=self.seed, progress=say)
        self._keep(state, form, found)

    def _minimise(self, state: _State, target: int, seconds: float) -> None:
        begin = self.clock.spent
        for form in state.forms if state.offset is not None else ():
            goal, left = max(target, self.bound), max(0.0, seconds - (self.clock.spent - begin))
            if state.peak <= max(goal, state.bound) or conflicts(form.instance) > _CONFLICTS:
                return
            if goal > state.bound:
                tried = exact.place(form.instance, goal // form.unit, time_limit=left / 2, seed=self.seed,
                                     threads=self.threads)  # fmt: skip
                self._keep(state, form, tried.offset)
                left = max(0.0, seconds - (self.clock.spent - begin))
            if state.peak > goal and state.offset is not None:
                start = state.offset // form.unit
                found = exact.minimise(form.instance, time_limit=left, incumbent=start,
                                        seed=self.seed, progress=self._say("exact search"))  # fmt: skip
                self._keep(state, form, found.offset)
                lost = 0 if form is state.part else int((form.instance.size * form.unit - state.size).max())
                state.bound = max(state.bound, found.bound * form.unit - lost)

    def _place(self, state: _State, limit: int, seconds: float) -> None:
        begin = self.clock.spent
        for form in state.forms:
            left = max(0.0, seconds - (self.clock.spent - begin))
            if state.peak <= limit or conflicts(form.instance) > _CONFLICTS:
                return
            tried = exact.place(
                form.instance, limit // form.unit, time_limit=left, seed=self.seed, threads=self.threads
            )
            self._keep(state, form, tried.offset)
            if tried.status == "infeasible" and (form is state.part or limit % form.step == 0):
                self._prove(state, form, limit)
                return

    def _prove(self, state: _State, form: Part, limit: int) -> None:
        """Takes down that a component does not fit, and which of its rows alone do not."""
        state.bound = max(state.bound, (limit // state.part.unit + 1) * state.part.unit)
        alone = exact.explain(form.instance, limit // form.unit, time_limit=max(self.clock.left, _EXPLAIN))
        self.infeasible = tuple(state.part.rows[alone].tolist())
