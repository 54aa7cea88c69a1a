"""Misses of a nest or of a recorded trace in a cache hierarchy: by level and by array, exact for the description.

The native simulators do the work (``native/core/cache_simulation.h`` says which one runs when); their slow twins are
``memfit.testing.cache_oracle`` over ``memfit.testing.nests.addresses``. A nest is walked without building its trace, and loops
whose cache state repeats are jumped over (``Misses.jumps``). Cost: about 1 ns to 5 ns an access of a trace, far less of a nest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memfit import _core
from memfit.errors import MachineError, NestError
from memfit.ir.nest import Nest, encode, placed
from memfit.machine.cache import INCLUSIONS, POLICIES, Hierarchy

Ints = npt.NDArray[np.int64]
_OTHERS = "other"
_MOST_LINES = 0x7FFFFFFE


@dataclass(frozen=True)
class LevelMisses:
    """What one level saw. ``accesses`` reached it, ``misses`` left it; ``by_array``: {array: misses}."""

    name: str
    accesses: int
    misses: int
    by_array: Mapping[str, int]
    write_backs: int
    prefetches: int


@dataclass(frozen=True)
class Misses:
    """The answer of a simulation. ``accesses`` by array; ``simulated``, ``jumps``, ``jumped``: how a nest was walked."""

    levels: tuple[LevelMisses, ...]
    accesses: Mapping[str, int]
    line: int
    simulated: int
    jumps: int = 0
    jumped: int = 0

    @property
    def total(self) -> int:
        """Accesses in all."""
        return sum(self.accesses.values())


def level_rows(hierarchy: Hierarchy) -> Ints:
    """The hierarchy as the native side reads it."""
    return np.array(
        [
            number
            for level in hierarchy.levels
            for number in (level.sets, level.ways, POLICIES.index(level.policy), int(level.prefetch != "off"))
        ],
        np.int64,
    )


def misses_of_nest(nest: Nest, hierarchy: Hierarchy, *, jump: bool = True, general: bool = False) -> Misses:
    """Simulate ``nest`` in ``hierarchy``, caches empty at first.

    Args:
        jump: pass over periods of loops whose cache state is proved to repeat; the counts are the same.
        general: take the simulator that knows every policy also where a faster one would do; the counts are the same.

    Raises:
        NestError: the nest is not one (``memfit.ir.nest.encode``), or its arrays lie too far apart.
    """
    nest = nest if nest.bases else placed(nest)
    code = encode(nest)
    spans = code.lines(hierarchy.line)
    if spans.max(initial=0) > _MOST_LINES:
        raise NestError(
            nest.name, f"an array ends at line {spans.max()}", f"{_MOST_LINES} lines can be simulated; lower its base"
        )
    served, written, fetched, simulated, jumps, jumped = _core.cache_nest(
        level_rows(hierarchy), INCLUSIONS.index(hierarchy.inclusion), hierarchy.write_backs == "apply", hierarchy.seed,
        code.numbers(), spans, code.variables, hierarchy.line.bit_length() - 1, general, jump,
    )  # fmt: skip
    return _answer(list(nest.arrays), hierarchy, served, written, fetched, simulated, jumps, jumped)


def misses_of_trace(
    addresses: npt.ArrayLike, hierarchy: Hierarchy, writes: npt.ArrayLike | None = None,
    arrays: Mapping[str, tuple[int, int]] | None = None, *, general: bool = False,
) -> Misses:  # fmt: skip
    """Simulate recorded byte addresses in ``hierarchy``, caches empty at first.

    Args:
        addresses: one dimension of integers >= 0; uint32 and uint64 are read in place.
        writes: which of them write, of the same length; None: none.
        arrays: half-open byte ranges by name, to count misses by; what lies in none counts as "other".

    Raises:
        MachineError: addresses that are none.
    """
    values = _addresses(addresses)
    flags = np.zeros(0, np.uint8) if writes is None else _flags(writes)
    if writes is not None and flags.shape != values.shape:
        raise MachineError("trace", f"{len(values)} addresses, {len(flags)} marks of writes", "give one for each")
    spans = moved = dict(arrays or {})
    found = _simulated(values, flags, _first_guess(values, hierarchy), moved, hierarchy, general)
    if found is None:
        values, first, moved = _near(values, hierarchy, spans)
        found = _simulated(values, flags, first, moved, hierarchy, general)
        assert found is not None
    served, written, fetched = found
    answer = _answer([*spans, _OTHERS], hierarchy, served, written, fetched, len(values), 0, 0)
    if not spans:
        return answer
    counts = {name: int(((values >= low) & (values < high)).sum()) for name, (low, high) in moved.items()}
    counts[_OTHERS] = len(values) - sum(counts.values())
    levels = answer.levels
    if not counts[_OTHERS]:
        del counts[_OTHERS]
        levels = tuple(
            LevelMisses(v.name, v.accesses, v.misses, {n: c for n, c in v.by_array.items() if n != _OTHERS}, v.write_backs,
                        v.prefetches) for v in levels
        )  # fmt: skip
    return Misses(levels, counts, answer.line, answer.simulated)


def _simulated(
    values: npt.NDArray[np.unsignedinteger], flags: npt.NDArray[np.uint8], first: int,
    spans: Mapping[str, tuple[int, int]], hierarchy: Hierarchy, general: bool,
) -> tuple[Ints, Ints, Ints] | None:  # fmt: skip
    """What the native simulator counts with lines numbered from ``first``; None: some lie too far from it."""
    line = hierarchy.line
    ends = [(low // line - first, (high - 1) // line - first) for low, high in spans.values()]
    rows = np.array(ends, np.int64).reshape(-1)
    served, written, fetched, near = _core.cache_trace(
        level_rows(hierarchy), INCLUSIONS.index(hierarchy.inclusion), hierarchy.write_backs == "apply", hierarchy.seed,
        values, flags, line.bit_length() - 1, first, rows, general,
    )  # fmt: skip
    return (served, written, fetched) if near else None


def _flags(writes: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """A byte for each access, not 0 where it writes; booleans and bytes are read in place."""
    marks = np.asarray(writes)
    if marks.dtype != np.uint8:
        marks = (marks if marks.dtype == np.bool_ else marks != 0).view(np.uint8)
    return np.ascontiguousarray(marks)


def _first_guess(values: npt.NDArray[np.unsignedinteger], hierarchy: Hierarchy) -> int:
    """A line that the trace hardly falls below, a whole turn of every level's sets, without a look at all addresses."""
    if not len(values):
        return 0
    turn = math.lcm(*(level.sets for level in hierarchy.levels))
    return max(int(values[0]) // hierarchy.line - _MOST_LINES // 2, 0) // turn * turn


def _addresses(addresses: npt.ArrayLike) -> npt.NDArray[np.unsignedinteger]:
    values = np.asarray(addresses)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        if values.size:
            raise MachineError(
                "trace", f"addresses of type {values.dtype}, {values.ndim} dimensions", "give one row of integers"
            )
        values = np.zeros(0, np.uint64)
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise MachineError("trace", f"an address of {values.min()}", "addresses are not negative")
    return np.ascontiguousarray(values, np.uint32 if values.dtype == np.uint32 else np.uint64)


def _near(
    values: npt.NDArray[np.unsignedinteger], hierarchy: Hierarchy, spans: Mapping[str, tuple[int, int]]
) -> tuple[npt.NDArray[np.unsignedinteger], int, dict[str, tuple[int, int]]]:
    """The addresses brought within reach of the simulators, the line to subtract, and the ranges brought along.

    Addresses far apart are numbered anew by chunks of whole turns through every level's sets, so that no line changes its
    set; chunks that were no neighbours do not become ones.
    """
    turn = math.lcm(*(level.sets for level in hierarchy.levels))
    if not len(values):
        return values, 0, dict(spans)
    first = int(values.min()) // hierarchy.line // turn * turn
    if int(values.max()) // hierarchy.line - first <= _MOST_LINES:
        return values, first, dict(spans)
    chunk = turn * hierarchy.line
    number, inverse = np.unique(values // np.uint64(chunk), return_inverse=True)
    place = np.arange(len(number)) + np.concatenate([[0], np.cumsum(np.diff(number) > 1)])
    if int(place[-1]) * turn > _MOST_LINES:
        raise MachineError(
            "trace", f"its addresses lie in {len(number)} places of {chunk} bytes", "simulate a part of it"
        )
    near = place.astype(np.uint64)[inverse] * np.uint64(chunk) + values % np.uint64(chunk)
    moved = {}
    for name, (low, high) in spans.items():
        inside = (values >= low) & (values < high)
        moved[name] = (int(near[inside].min()), int(near[inside].max()) + 1) if inside.any() else (0, 0)
    return near, 0, moved


def _answer(
    arrays: list[str],
    hierarchy: Hierarchy,
    served: Ints,
    written: Ints,
    fetched: Ints,
    simulated: int,
    jumps: int,
    jumped: int,
) -> Misses:
    depths = len(hierarchy.levels) + 1
    table = np.asarray(served).reshape(-1, depths)
    left = table[:, ::-1].cumsum(axis=1)[:, ::-1]  # [array][depth]: accesses that reached this depth
    levels = tuple(
        LevelMisses(
            level.name, int(left[:, i].sum()), int(left[:, i + 1].sum()),
            {name: int(left[a, i + 1]) for a, name in enumerate(arrays)}, int(written[i]), int(fetched[i]),
        )
        for i, level in enumerate(hierarchy.levels)
    )  # fmt: skip
    return Misses(
        levels, {name: int(left[a, 0]) for a, name in enumerate(arrays)}, hierarchy.line, simulated, jumps, jumped
    )
