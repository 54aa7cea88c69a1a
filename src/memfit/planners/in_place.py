"""Which in-place pairs to use: sets of pairs whose buffers then lie at one offset, to be planned and compared.

A pair (a, b) lets b take over the bytes of a where both are alive. Using it lowers the load at those instants, and ties
two buffers together, which can raise the peak of a placement. So several sets are offered, the empty one among them,
and the caller keeps the best placement: never worse than using none.

    ``()``        none
    needed        the largest saving at the fullest instant, again and again, until nothing there can be saved
    largest       every pair that still goes, largest saving first
    all subsets   where there are few pairs; then a bound that holds for each of them holds for the Problem

Buffers at one offset must get along two by two: joined groups are refused where a member of one meets a member of the
other in time and bytes without being its pair, or where pins, memories or pinned neighbours contradict. Cost: the
number of pairs times the instants, plus the pieces of the groups that are joined.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from memfit.planners import reduce
from memfit.planners.bounds import profile
from memfit.planners.problem import Ints, Piece, Problem
from memfit.planners.reduce import Groups

Pairs = tuple[tuple[int, int], ...]
_SUBSETS = 5  # usable pairs up to which every subset is offered


@dataclass(frozen=True)
class Choices:
    """Sets of pairs to try, the empty one first. ``complete``: any placement uses one of them."""

    sets: tuple[Pairs, ...]
    complete: bool


def choices(problem: Problem) -> Choices:
    """The sets of in-place pairs worth trying; see the module text."""
    if not problem.in_place:
        return Choices(((),), True)
    joiner = _Joiner(problem)
    pairs = joiner.usable()
    if not pairs:
        return Choices(((),), True)
    if len(pairs) <= _SUBSETS:
        subsets = [s for k in range(len(pairs) + 1) for s in combinations(pairs, k)]
        return Choices(tuple(s for s in subsets if joiner.join_all(s)), True)
    found: list[Pairs] = [()]
    for chosen in (_needed(joiner, pairs), _largest(joiner, pairs)):
        if chosen not in found:
            found.append(chosen)
    return Choices(tuple(found), False)


class _Joiner:
    """Groups of buffers at one offset that grow by pairs, as long as their members get along."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.groups: Groups = reduce.groups_of(problem)
        self.paired = {frozenset(pair) for pair in problem.in_place}
        self.pinned = [g for g, members in enumerate(self.groups.members) if (problem.offset[list(members)] >= 0).any()]
        self.reset()

    def reset(self) -> None:
        """No pair joined."""
        self.group = self.groups.group.tolist()
        self.members = [list(m) for m in self.groups.members]
        self.memory = self.groups.memory.tolist()
        self.pin = [max(int(self.problem.offset[b]) for b in m) for m in self.groups.members]

    def usable(self) -> list[tuple[int, int]]:
        """Pairs that can be joined alone and save bytes at some instant, in the Problem's order."""
        out = []
        for a, b in dict.fromkeys(self.problem.in_place):
            if self.group[a] != self.group[b] and _meet(self.problem, a, b) and self.fits(self.group[a], self.group[b]):
                out.append((a, b))
        return out

    def fits(self, first: int, second: int) -> bool:
        """Whether two groups can become one."""
        if self.memory[first] >= 0 and self.memory[second] >= 0 and self.memory[first] != self.memory[second]:
            return False
        if self.pin[first] >= 0 and self.pin[second] >= 0 and self.pin[first] != self.pin[second]:
            return False
        if any(
            frozenset((a, b)) not in self.paired and _meet(self.problem, a, b)
            for a in self.members[first] for b in self.members[second]
        ):  # fmt: skip
            return False
        pin = max(self.pin[first], self.pin[second])
        return pin < 0 or self._pin_is_free(first, second, pin)

    def _pin_is_free(self, first: int, second: int, pin: int) -> bool:
        """Whether both groups can lie at ``pin``: aligned, and beside every other pinned group."""
        both = self.members[first] + self.members[second]
        if any(pin % int(self.problem.alignment[b]) for b in both):
            return False
        own = {self.group[b] for b in both}
        return not any(
            self.pin[other] - pin == shift
            and _meet(self.problem, a, b, shift)
            and not (shift == 0 and frozenset((a, b)) in self.paired)
            for other in {self.group[m] for g in self.pinned for m in self.groups.members[g]} - own
            for shift in (self.pin[other] - pin,)
            for a in both for b in self.members[other]
        )  # fmt: skip

    def join(self, a: int, b: int) -> bool:
        """Joins the groups of two buffers; whether they are one now."""
        first, second = self.group[a], self.group[b]
        if first == second:
            return True
        if not self.fits(first, second):
            return False
        for member in self.members[second]:
            self.group[member] = first
        self.members[first] += self.members[second]
        self.members[second] = []
        self.pin[first] = max(self.pin[first], self.pin[second])
        self.memory[first] = max(self.memory[first], self.memory[second])
        return True

    def join_all(self, pairs: Pairs) -> bool:
        """Whether all pairs can be joined together; starts from none."""
        self.reset()
        return all(self.join(a, b) for a, b in pairs)


def _meet(problem: Problem, a: int, b: int, shift: int = 0) -> bool:
    """Whether two buffers share a byte at some instant, with b ``shift`` bytes above a."""
    return any(_saving(p, q, shift) for p in problem.pieces_of(a) for q in problem.pieces_of(b))


def _saving(p: Piece, q: Piece, shift: int = 0) -> int:
    """Bytes that two pieces share where they are both alive."""
    if p.lower >= q.upper or q.lower >= p.upper:
        return 0
    return max(0, min(p.high, q.high + shift) - max(p.low, q.low + shift))


def _saved(problem: Problem, a: int, b: int) -> int:
    """Largest number of bytes that a pair saves at an instant."""
    return max(_saving(p, q) for p in problem.pieces_of(a) for q in problem.pieces_of(b))


def _largest(joiner: _Joiner, pairs: list[tuple[int, int]]) -> Pairs:
    """Every pair that still goes, largest saving first."""
    joiner.reset()
    ranked = sorted(range(len(pairs)), key=lambda i: (-_saved(joiner.problem, *pairs[i]), i))
    used = [i for i in ranked if joiner.join(*pairs[i])]
    return tuple(pairs[i] for i in sorted(used))


def _needed(joiner: _Joiner, pairs: list[tuple[int, int]]) -> Pairs:
    """Pairs alive at the fullest instant, largest saving first, until nothing more can be saved there."""
    joiner.reset()
    problem = joiner.problem
    whole = reduce.whole_instance(problem, joiner.groups)
    loads, full = profile(whole)
    savings = [
        (i, *np.searchsorted(full, (max(p.lower, q.lower), min(p.upper, q.upper))).tolist(), _saving(p, q))
        for i, (a, b) in enumerate(pairs)
        for p in problem.pieces_of(a) for q in problem.pieces_of(b) if _saving(p, q)
    ]  # fmt: skip
    first: Ints = np.array([s[1] for s in savings], dtype=np.int64)
    end: Ints = np.array([s[2] for s in savings], dtype=np.int64)
    open_pairs, used = set(range(len(pairs))), set[int]()
    while open_pairs:
        at = int(np.argmax(loads))
        alive = [savings[j] for j in np.flatnonzero((first <= at) & (at < end)) if savings[j][0] in open_pairs]
        if not alive:
            break
        best = min(alive, key=lambda s: (-s[3], s[0]))[0]
        open_pairs.discard(best)
        if joiner.join(*pairs[best]):
            used.add(best)
            for i, begin, stop, saving in savings:
                if i == best:
                    loads[begin:stop] -= saving
    return tuple(pairs[i] for i in sorted(used))
