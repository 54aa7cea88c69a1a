"""Hold a projection against a measurement: peak, categories, and op by op, and name the first divergence.

Within each step and phase both runs are sequences of ops. They are aligned by name, in order; what lies between two
aligned ops (an op that one side sees under another name, or not at all) is held together::

    projected   addmm 4096 | gelu 8192 | native_dropout 8192+2048           | addmm 4096
    measured    addmm 4096 | gelu 8192 | bernoulli_ 2048, div_ 0, mul 8192  | addmm 9999   <- first divergence

Held against each other is by how much an op raises the live bytes at most: what it makes, with its scratch. A
difference counts above 1 KiB and 1 %: numbers that become tensors, a few bytes each, exist in one world only.
Alignment: common ends are taken off, the rest by Ratcliff and Obershelp's matching blocks (``difflib``), O(n^2) at
worst; beyond 5,000 differing ops by the n-th occurrence of a name, O(n). A step whose phases differ on the two sides (a
step that runs itself) is aligned as a whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from memfit.analyses.timeline import timeline
from memfit.ir.trace import Trace, TraceOp

_ABSOLUTE, _RELATIVE = 1024, 0.01
_LONG = 5000
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Divergence:
    """An op, or a run of them, that raises the live bytes by ``projected`` on one side, ``measured`` on the other."""

    step: int
    phase: str
    op: str
    module: str
    line: str
    projected: int
    measured: int

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "step": self.step, "phase": self.phase, "op": self.op, "module": self.module, "line": self.line,
            "projected": self.projected, "measured": self.measured,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What differs. Bytes; ``peak`` and ``categories`` as (projected, measured), each at its own live peak."""

    peak: tuple[int, int]
    categories: dict[str, tuple[int, int]]
    divergences: tuple[Divergence, ...]
    aligned: int
    only_projected: int
    only_measured: int

    @property
    def first_divergence(self) -> Divergence | None:
        """The first in time, None where no op diverges."""
        return self.divergences[0] if self.divergences else None

    @property
    def error(self) -> float:
        """(projected - measured) / measured peak."""
        return (self.peak[0] - self.peak[1]) / self.peak[1] if self.peak[1] else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data, as reports draw it; the largest divergences after the first one."""
        largest = sorted(self.divergences, key=lambda found: -abs(found.projected - found.measured))[:_LISTED]
        return {
            "peak": _pair(self.peak), "error": self.error,
            "categories": {name: _pair(pair) for name, pair in self.categories.items()},
            "first_divergence": self.first_divergence.to_json() if self.first_divergence else None,
            "divergences": len(self.divergences),
            "largest_divergences": [found.to_json() for found in largest],
            "ops": {
                "aligned": self.aligned, "only_projected": self.only_projected, "only_measured": self.only_measured,
            },
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Made:
    op: TraceOp
    rise: int  # at most, inside the op
    kept: int  # of it, beyond the op


_Phases = dict[tuple[int, str], list[_Made]]


def compare(projected: Trace, measured: Trace) -> Comparison:
    """Hold ``projected`` against ``measured``; steps that only one of them has are left out of the op by op part."""
    left, right = timeline(projected), timeline(measured)
    categories = {
        name: (left.categories[name], right.categories[name]) for name in left.categories if name in right.categories
    }
    ours, theirs = _same_phases(_phases(projected), _phases(measured))
    found: list[Divergence] = []
    aligned = only_projected = only_measured = 0
    for key in ours:
        if key not in theirs or key[0] < 0:
            continue
        for one, other in aligned_runs(ours[key], theirs[key]):
            if len(one) == len(other) == 1 and one[0].op.name == other[0].op.name:
                aligned += 1
            else:
                only_projected += len(one)
                only_measured += len(other)
            rises = _rise(one), _rise(other)
            if differs(*rises):
                found.append(_divergence(key, one, other, *rises))
    return Comparison((left.peak, right.peak), categories, tuple(found), aligned, only_projected, only_measured)


def differs(one: int, other: int) -> bool:
    """Whether two byte counts differ by more than what the two worlds count differently."""
    return abs(one - other) > max(_ABSOLUTE, _RELATIVE * max(one, other))


def aligned_runs(one: Sequence[_Made], other: Sequence[_Made]) -> Iterator[tuple[Sequence[_Made], Sequence[_Made]]]:
    """Pairs of runs that stand for each other, in order: aligned ops one by one, and what lies between them."""
    names, others = [made.op.name for made in one], [made.op.name for made in other]
    at = to = 0
    for start, begin, size in (*_blocks(names, others), (len(one), len(other), 0)):
        if start > at or begin > to:
            yield one[at:start], other[to:begin]
        for offset in range(size):
            yield one[start + offset : start + offset + 1], other[begin + offset : begin + offset + 1]
        at, to = start + size, begin + size


def _blocks(names: list[str], others: list[str]) -> list[tuple[int, int, int]]:
    """Matching blocks (start in one, start in other, length), increasing."""
    shorter = min(len(names), len(others))
    head = next((i for i in range(shorter) if names[i] != others[i]), shorter)
    tail = next((i for i in range(shorter - head) if names[-1 - i] != others[-1 - i]), shorter - head)
    middle, other_middle = names[head : len(names) - tail], others[head : len(others) - tail]
    if max(len(middle), len(other_middle)) <= _LONG:
        matched: list[tuple[int, int, int]] = [
            (block.a, block.b, block.size)
            for block in SequenceMatcher(None, middle, other_middle, autojunk=False).get_matching_blocks()
        ]
    else:
        matched = _by_occurrence(middle, other_middle)
    inner = [(a + head, b + head, size) for a, b, size in matched if size]
    return [(0, 0, head), *inner, (len(names) - tail, len(others) - tail, tail)]


def _by_occurrence(names: list[str], others: list[str]) -> list[tuple[int, int, int]]:
    """The n-th occurrence of a name matches the n-th; matches that would cross an earlier one are dropped."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, name in reversed(list(enumerate(others))):
        places[name].append(index)
    result, last = [], -1
    for index, name in enumerate(names):
        if places[name]:
            match = places[name].pop()
            if match > last:
                result.append((index, match, 1))
                last = match
    return result


def _rise(run: Sequence[_Made]) -> int:
    """By how much a run of ops raises the live bytes at most, if nothing older dies in it."""
    base = highest = 0
    for made in run:
        highest = max(highest, base + made.rise)
        base += made.kept
    return highest


def _phases(trace: Trace) -> _Phases:
    """Per step and phase the ops that make something, in time order. Cost: O(events)."""
    born = [storage.op for storage in trace.storages]
    now: dict[int, int] = {}
    rise: dict[int, int] = {}
    for storage, delta, op in zip(trace.storage.tolist(), trace.delta.tolist(), trace.op.tolist(), strict=True):
        if born[storage] == op:
            now[op] = now.get(op, 0) + delta
            rise[op] = max(rise.get(op, 0), now[op])
    result: _Phases = {}
    for index, highest in rise.items():
        op = trace.ops[index]
        result.setdefault((op.step, op.phase), []).append(_Made(op, highest, now[index]))
    return result


def _same_phases(ours: _Phases, theirs: _Phases) -> tuple[_Phases, _Phases]:
    """Both, with the phases of a step joined into one where the two sides do not have the same ones."""
    for step in {step for step, _ in ours} & {step for step, _ in theirs}:
        names = [{phase for at, phase in side if at == step and phase != "between"} for side in (ours, theirs)]
        if names[0] != names[1]:
            ours, theirs = _joined(ours, step), _joined(theirs, step)
    return ours, theirs


def _joined(side: _Phases, step: int) -> _Phases:
    whole = [made for (at, _), run in side.items() if at == step for made in run]
    rest = {key: run for key, run in side.items() if key[0] != step}
    return dict(sorted({**rest, (step, "step"): whole}.items(), key=lambda item: item[0][0]))


def _divergence(
    key: tuple[int, str], one: Sequence[_Made], other: Sequence[_Made], projected: int, measured: int
) -> Divergence:
    """Named after the op that makes most on the side that makes more; place from wherever it is known."""
    more, less = (other, one) if measured >= projected else (one, other)
    larger = max((*more, *less), key=lambda made: made.rise)
    places = [larger.op, *(made.op for made in (*other, *one))]
    module = next((op.module for op in places if op.module), "")
    line = next((op.line for op in places if op.line), "")
    return Divergence(key[0], key[1], larger.op.name, module, line, projected, measured)


def _pair(values: tuple[int, int]) -> dict[str, int]:
    return {"projected": values[0], "measured": values[1]}
