"""Reuse distances (LRU stack distances) and the miss-ratio curve: misses of a fully associative LRU cache of every size.

Exact, by one pass (``native/core/reuse_distance.h``). For long recorded traces a sample of the lines can be taken instead
(Waldspurger et al., SHARDS, FAST 2015): its answer carries an error, and it is refused for nests, whose cliffs it misses.
Cost: about 10 ns an access that changes the line; a nest's iterations on the same lines cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memfit import _core
from memfit.analyses.cache_misses import _addresses
from memfit.errors import MachineError, NestError
from memfit.ir.nest import Nest, encode, placed

Ints = npt.NDArray[np.int64]
_MOST_LINES = 1 << 28


@dataclass(frozen=True)
class Reuse:
    """How far apart uses of the same line are.

    Attributes:
        distance: ``distance[d]``: accesses with ``d`` other lines in between.
        cold: first uses.
        misses: {array: misses at each of ``capacities``}, empty for a trace.
        cold_by_array: {array: first uses}, empty for a trace.
        error: mean absolute error of the miss ratio, 0.0 where exact.
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
    lines = values // values.dtype.type(line)
    factor = 1.0
    if sample is not None:
        hashed = (lines.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
        lines = lines[hashed < np.uint64(int(sample * (1 << 24)))]
        factor = 1 / sample
    names, dense = np.unique(lines, return_inverse=True) if len(lines) else (lines, np.zeros(0, np.int64))
    found = np.asarray(_core.reuse_trace(np.ascontiguousarray(dense, np.uint32), 0, 0, max(len(names), 1)))
    if sample is None:
        return Reuse(found[:-1], int(found[-1]))
    kept = np.flatnonzero(found[:-1])
    spread = np.zeros(round(len(found) * factor) + 1, np.int64)
    counts = np.round(found[:-1][kept] * len(values) / max(len(lines), 1)).astype(np.int64)
    np.add.at(spread, np.minimum((kept * factor).astype(np.int64), len(spread) - 1), counts)
    return Reuse(spread, round(int(found[-1]) * len(values) / max(len(lines), 1)), error=1 / max(len(names), 1) ** 0.5)
