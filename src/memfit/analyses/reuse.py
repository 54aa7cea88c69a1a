"""Reuse distances (LRU stack distances) and the miss-ratio curve: misses of a fully associative LRU cache of every size.

Exact, by one pass (``native/core/reuse_distance.h``). For long recorded traces a sample of the lines can be taken instead
(Waldspurger et al., SHARDS, FAST 2015): its answer carries an error, and it is refused for nests, whose cliffs it misses.
Cost: about 10 ns an access that changes the line; a nest's iterations on the same lines cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from memfit import _core
from memfit.analyses.cache_misses import _addresses
from memfit.errors import MachineError, NestError
from memfit.ir.nest import Nest, encode, placed

Ints = npt.NDArray[np.int64]
_MOST_LINES = 1 << 28
_MIX, _HASHES = np.uint64(0x9E3779B97F4A7C15), 1 << 24
_PARTS = 8
"""Parts of a sample whose answers are compared to state its error."""


@dataclass(frozen=True)
class Reuse:
    """How far apart uses of the same line are.

    Attributes:
        distance: ``distance[d]``: accesses with ``d`` other lines in between.
        cold: first uses.
        misses: {array: misses at each of ``capacities``}, empty for a trace.
        cold_by_array: {array: first uses}, empty for a trace.
        error: twice the standard error of the miss ratio, the mean over cache sizes; 0.0 where exact.
    """

    distance: Ints
    cold: int
    capacities: tuple[int, ...] = ()
    misses: Mapping[str, tuple[int, ...]] | None = None
    cold_by_array: Mapping[str, int] | None = None
    error: float = 0.0

    @property
    def accesses(self) -> int:
        """Accesses in all."""
        return int(self.distance.sum()) + self.cold

    def misses_at(self, lines: int) -> int:
        """Misses of a fully associative LRU cache of ``lines`` lines, >= 1."""
        return int(self.distance[lines:].sum()) + self.cold

    def curve(self, points: int = 64) -> list[tuple[int, float]]:
        """(lines, miss ratio) at about ``points`` sizes by equal factors, and at every cliff in between."""
        most = max(len(self.distance), 1)
        left = np.concatenate([np.cumsum(self.distance[::-1])[::-1], [0]]) + self.cold
        sizes = {max(1, round(most ** (i / max(points - 1, 1)))) for i in range(points)} | {most}
        drops = np.flatnonzero(self.distance[1:] > 0.01 * max(self.accesses, 1)) + 2
        sizes |= {int(size) for size in drops[:points] if size <= most}
        total = max(self.accesses, 1)
        return [(size, float(left[min(size, len(left) - 1)]) / total) for size in sorted(sizes)]


def reuse_of_nest(nest: Nest, capacities: Sequence[int] = (), line: int = 64, *, sample: float | None = None) -> Reuse:
    """The reuse distances of ``nest`` in lines of ``line`` bytes; misses by array at ``capacities`` (lines).

    Raises:
        NestError: the nest is not one, is too large, or a sample of it was asked for.
    """
    if sample is not None:
        raise NestError(
            nest.name, "a sample of a nest's lines", "misses come in cliffs there, which samples miss; ask without it"
        )
    nest = nest if nest.bases else placed(nest)
    code = encode(nest)
    spans = code.lines(line)
    if spans.max(initial=0) - spans.min(initial=0) > _MOST_LINES:
        raise NestError(
            nest.name, f"{spans.max() - spans.min()} lines between its arrays", f"{_MOST_LINES} are allowed"
        )
    distance, misses, cold = _core.reuse_nest(
        code.numbers(), spans, code.variables, line.bit_length() - 1, np.array(capacities, np.int64)
    )
    names = list(nest.arrays)
    table = np.asarray(misses).reshape(len(names), len(capacities))
    return Reuse(
        np.asarray(distance)[:-1], int(distance[-1]), tuple(capacities),
        {name: tuple(int(m) for m in table[a]) for a, name in enumerate(names)},
        {name: int(cold[a]) for a, name in enumerate(names)},
    )  # fmt: skip


def reuse_of_trace(addresses: npt.ArrayLike, line: int = 64, *, sample: float | None = None) -> Reuse:
    """The reuse distances of recorded byte addresses.

    Args:
        sample: take so large a part of the lines, in (0, 1); the answer then says its error. None: exact.

    Raises:
        MachineError: addresses that are none, or a share that is none.
    """
    values = _addresses(addresses)
    if sample is not None and not 0 < sample < 1:
        raise MachineError("sample", f"{sample} is no share of the lines", "write more than 0 and less than 1")
    shift = line.bit_length() - 1
    if sample is None:
        found = _distances(values, shift)
        return Reuse(found[: int(found[-1])], int(found[-1]))
    hashed = (((values >> values.dtype.type(shift)).astype(np.uint64) * _MIX) >> np.uint64(40)).astype(np.uint32)
    kept = np.flatnonzero(hashed < int(sample * _HASHES))
    taken, place = values[kept], hashed[kept]
    whole = _estimate(taken, shift, sample, len(values))
    share = sample / _PARTS
    ends = [int(share * part * _HASHES) for part in range(_PARTS + 1)]
    parts = [
        _estimate(taken[(place >= low) & (place < high)], shift, share, len(values)) for low, high in pairwise(ends)
    ]
    return replace(whole, error=_error_of(parts, whole))


def _estimate(taken: npt.NDArray[np.unsignedinteger], shift: int, share: float, accesses: int) -> Reuse:
    """What a share of the lines says of all. Counts grow by 1 / share; a distance d stands for any between d / share and
    (d + 1) / share; what accesses are then too many or too few are of the lines used most, at the least distance (SHARDS-adj).
    """
    found = _distances(taken, shift)
    lines = int(found[-1])
    cold = round(lines / share)
    ends = np.arange(lines + 1) / share
    sums = np.concatenate([[0], np.cumsum(found[:lines])]) / share
    below = np.interp(np.arange(1, int(ends[-1]) + 2), ends, sums)
    spread: Ints = np.diff(np.concatenate([[0], np.round(below)])).astype(np.int64)
    spread[0] += accesses - cold - int(spread.sum())
    return Reuse(spread, cold)


def _error_of(parts: Sequence[Reuse], whole: Reuse) -> float:
    """Twice the standard error of the miss ratio, the mean over sizes by equal factors, from what parts of the sample say."""
    sizes = sorted({round(max(len(whole.distance), 2) ** (n / 16)) for n in range(1, 17)})
    ratios = np.array([[part.misses_at(size) / max(part.accesses, 1) for size in sizes] for part in parts])
    return float(2 * ratios.std(axis=0, ddof=1).mean() / len(parts) ** 0.5)


def _distances(values: npt.NDArray[np.unsignedinteger], shift: int) -> Ints:
    """Accesses of each distance, last: first uses. Lines that lie close together are not numbered anew."""
    if not len(values):
        return np.zeros(1, np.int64)
    low, high = int(values.min()) >> shift, int(values.max()) >> shift
    if high - low < min(max(2 * len(values), 1 << 20), _MOST_LINES):
        return np.asarray(_core.reuse_trace(values, shift, low, high - low + 1))
    names, dense = np.unique(values >> values.dtype.type(shift), return_inverse=True)
    return np.asarray(_core.reuse_trace(np.ascontiguousarray(dense, np.uint32), 0, 0, len(names)))
