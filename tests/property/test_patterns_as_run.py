"""Loops as Python runs them, every subscript recorded, against what is read from their text: five patterns of random sizes.

The accesses come from running the lines over arrays that write down what is asked of them, so neither the reader of the
lines nor the walker of nests has a part in what is right; the caches and distances are the plain lists of the oracle.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from memfit.analyses.cache_misses import misses_of_nest, misses_of_trace
from memfit.analyses.gathers import Gather
from memfit.analyses.miss_reasons import reasons_of
from memfit.analyses.reuse import reuse_of_nest, reuse_of_trace
from memfit.ir.nest import ArraySpec
from memfit.ir.nest_source import nest_from_source
from memfit.machine.cache import CacheLevel, Hierarchy
from memfit.testing.cache_oracle import AnyOracle, oracle_distances

STENCIL = """
for z in range(1, D - 1):
    for y in range(1, H - 1):
        for x in range(1, W - 1):
            s = A[z, y, x] + A[z - 1, y, x] + A[z + 1, y, x]
            s = s + A[z, y - 1, x] + A[z, y + 1, x]
            B[z, y, x] = s + A[z, y, x - 1] + A[z, y, x + 1]
"""
ATTENTION = """
for i in range(T):
    m = 0
    for j in range(T):
        s = 0
        for d in range(E):
            s = s + Q[i, d] * K[j, d]
        S[i, j] = s
        m = m + s
    for j in range(T):
        S[i, j] = S[i, j] - m
    L[i] = m
    for d in range(E):
        o = 0
        for j in range(T):
            o = o + S[i, j] * V[j, d]
        O[i, d] = o * L[i]
"""
TRIANGLE = """
for i in range(N):
    for j in range(i + 1):
        s = A[i, j]
        for k in range(j, min(i, N - 2)):
            s = s + L[i, k] * L[j, k]
        L[i, j] = s
    for j in range(N - 1, i, -1):
        X[i] = X[i] + L[j, i] * X[j]
"""
TRANSPOSE = """
for b in range(N):
    for jj in range(0, W, T):
        for i in range(H):
            for j in range(jj, min(jj + T, W)):
                Y[b, j, i] = X[b, i, j]
"""
CONVOLUTION = """
for c in range(C):
    for y in range(H):
        for x in range(W):
            s = 0
            for r in range(3):
                for q in range(3):
                    s = s + I[c, 2 * y + 3 * r, 2 * x + 3 * q] * F[c, 2 - r, 2 - q]
            O[y, x, c] = s
"""


class Recorder:
    """An array that keeps no values: it writes down the address of every element that is asked for."""

    def __init__(self, name, base, spec, log):
        self.name, self.base, self.steps, self.log = name, base, spec.steps(), log

    def _address(self, place):
        place = place if isinstance(place, tuple) else (place,)
        return self.base + sum(p * step for p, step in zip(place, self.steps, strict=True))

    def __getitem__(self, place):
        self.log.append((self._address(place), False, self.name))
        return 0

    def __setitem__(self, place, value):
        self.log.append((self._address(place), True, self.name))


@dataclass
class Case:
    source: str
    numbers: dict[str, int]
    arrays: dict[str, ArraySpec]


def _case(draw: random.Random, kind: str) -> Case:
    if kind == "stencil":
        n = {"D": draw.randint(3, 6), "H": draw.randint(3, 9), "W": draw.randint(3, 37)}
        shape = tuple(n.values())
        return Case(
            STENCIL,
            n,
            {"A": ArraySpec(shape, draw.choice([4, 8]), shape[2] + draw.randint(0, 9)), "B": ArraySpec(shape)},
        )
    if kind == "attention":
        t, e = draw.randint(2, 17), draw.randint(1, 19)
        rows = {name: ArraySpec((t, e), 4, e + draw.randint(0, 3)) for name in "QKVO"}
        return Case(ATTENTION, {"T": t, "E": e}, {**rows, "S": ArraySpec((t, t)), "L": ArraySpec((t,))})
    if kind == "triangle":
        n = draw.randint(2, 24)
        return Case(TRIANGLE, {"N": n}, {"A": ArraySpec((n, n)), "L": ArraySpec((n, n), 8), "X": ArraySpec((n,), 16)})
    if kind == "transpose":
        b, h, w = draw.randint(1, 3), draw.randint(1, 20), draw.randint(1, 40)
        arrays = {
            "X": ArraySpec((b, h, w), 4, w + draw.choice([0, 1, 16])),
            "Y": ArraySpec((b, w, h), 4, h + draw.randint(0, 16)),
        }
        return Case(TRANSPOSE, {"N": b, "H": h, "W": w, "T": draw.randint(1, 12)}, arrays)
    c, h, w = draw.randint(1, 4), draw.randint(1, 6), draw.randint(1, 9)
    arrays = {"I": ArraySpec((c, 2 * h + 5, 2 * w + 5)), "F": ArraySpec((c, 3, 3), 2), "O": ArraySpec((h, w, c), 8)}
    return Case(CONVOLUTION, {"C": c, "H": h, "W": w}, arrays)


def _levels(draw: random.Random) -> Hierarchy:
    found = []
    for number in range(draw.randint(1, 3)):
        ways, sets = draw.choice([1, 2, 3, 4, 6, 12]), draw.choice([1, 2, 3, 5, 8, 16]) * (1 + number)
        found.append(
            CacheLevel(f"L{number + 1}", 64 * ways * sets, ways, 64, draw.choice(["lru", "lru", "fifo", "random"]))
        )
    return Hierarchy(tuple(found), write_backs=draw.choice(["count", "apply"]))


KINDS = ("stencil", "attention", "triangle", "transpose", "convolution")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_runs(kind, seed):
    draw = random.Random(f"{kind} {seed}")
    case, levels = _case(draw, kind), _levels(draw)
    nest = nest_from_source(case.source, case.arrays, case.numbers)
    log: list[tuple[int, bool, str]] = []
    exec(case.source, {**case.numbers, **{n: Recorder(n, nest.bases[n], spec, log) for n, spec in case.arrays.items()}})
    slow, by_array = AnyOracle(levels), {name: [0] * len(levels.levels) for name in case.arrays}
    for address, write, name in log:
        for level in range(slow.access(address // 64, write)):
            by_array[name][level] += 1
    for jump in (True, False):
        found = misses_of_nest(nest, levels, jump=jump)
        assert found.accesses == dict(Counter(name for _, _, name in log))
        for number, level in enumerate(found.levels):
            assert dict(level.by_array) == {name: counts[number] for name, counts in by_array.items()}
    distances = oracle_distances([address for address, _, _ in log])
    capacities = [level.lines for level in levels.levels]
    reuse = reuse_of_nest(nest, capacities)
    assert [distances.count(d) for d in range(len(reuse.distance))] == reuse.distance.tolist()
    assert reuse.cold == distances.count(-1) == len({address // 64 for address, _, _ in log})
    for reason in reasons_of(found, reuse, nest, levels):
        assert reason.cold + reason.capacity + reason.conflict == reason.misses


@pytest.mark.parametrize("seed", range(12))
def test_a_gather_of_odd_rows(seed):
    draw = random.Random(seed)
    gather = Gather(draw.randint(1, 60), draw.choice([1, 3, 16, 17, 33]), draw.randint(1, 90))
    read = gather.indices(draw.choice([0.5, 1.1]), seed)
    order = np.argsort(read, kind="stable")
    levels = _levels(draw)
    for rows, places in ((read, np.arange(gather.lookups)), (read[order], order)):
        addresses, writes = gather.trace(rows, places)
        table, out = gather.arrays()["table"][0], gather.arrays()["out"][0]
        expected = []
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            for column in range(gather.width):
                expected.append((table + 4 * (row * gather.width + column), 0))
                expected.append((out + 4 * (place * gather.width + column), 1))
        assert list(zip(addresses.tolist(), writes.tolist(), strict=True)) == expected
        slow, missed = AnyOracle(levels), Counter()
        for address, write in expected:
            missed["out" if write else "table"] += slow.access(address // 64, bool(write)) > 0
        found = misses_of_trace(addresses, levels, writes, gather.arrays())
        assert {name: count for name, count in found.levels[0].by_array.items() if name != "other"} == {
            "table": missed["table"], "out": missed["out"]
        }  # fmt: skip
        assert [level.write_backs for level in found.levels] == slow.write_backs
        distances = oracle_distances([address for address, _ in expected])
        reuse = reuse_of_trace(addresses)
        assert [distances.count(d) for d in range(len(reuse.distance))] == reuse.distance.tolist()
        assert reuse.cold == distances.count(-1)
