"""The native simulators against their slow twins, on random traces, nests and hierarchies."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from memfit.analyses.cache_misses import misses_of_nest, misses_of_trace
from memfit.analyses.reuse import reuse_of_nest, reuse_of_trace
from memfit.errors import NestError
from memfit.machine.cache import INCLUSIONS, POLICIES, CacheLevel, Hierarchy
from memfit.testing.cache_oracle import AnyOracle, oracle, oracle_distances
from memfit.testing.nests import IJK, IKJ, TILED, addresses, product, random_nest


def _hierarchy(draw: random.Random, *, plain: bool) -> Hierarchy:
    levels = []
    for number in range(draw.randint(1, 3)):
        policy = "lru" if plain else draw.choice(POLICIES)
        ways = draw.choice([1, 2, 4, 8, 16] if policy == "plru" else [1, 2, 3, 5, 8, 12, 20, 40])
        sets = draw.choice([1, 2, 3, 4, 6, 8]) * (1 + number)
        levels.append(CacheLevel(f"L{number + 1}", 64 * ways * sets, ways, 64, policy))
    if plain:
        return Hierarchy(tuple(levels))
    inclusion = draw.choice(INCLUSIONS)
    if inclusion != "exclusive":
        levels = [replace(level, prefetch=draw.choice(["off", "off", "next-line"])) for level in levels]
    return Hierarchy(tuple(levels), inclusion, draw.choice(["count", "apply"]), draw.randint(0, 9))


def _trace(draw: random.Random) -> list[int]:
    lines, here, found = draw.choice([20, 90, 400]), 0, []
    for _ in range(1500):
        here = draw.choice([here + 1, here + 4, draw.randrange(lines), here]) % lines
        found.append(here * 64 + draw.randrange(64))
    return found


def _served(found, count):
    reached = [found.total, *(level.misses for level in found.levels)]
    return [reached[i] - reached[i + 1] for i in range(count)] + [reached[count]]


@pytest.mark.parametrize("seed", range(40))
def test_plain_levels_against_the_oracle(seed):
    draw = random.Random(seed)
    hierarchy, trace = _hierarchy(draw, plain=True), _trace(draw)
    expected = oracle(trace, hierarchy)
    for general in (False, True):
        assert _served(misses_of_trace(trace, hierarchy, general=general), len(hierarchy.levels)) == expected
    assert _served(misses_of_trace(np.array(trace, np.uint32), hierarchy), len(hierarchy.levels)) == expected


@pytest.mark.parametrize("seed", range(60))
def test_any_hierarchy_against_the_oracle(seed):
    draw = random.Random(1000 + seed)
    hierarchy, trace = _hierarchy(draw, plain=seed % 3 == 0), _trace(draw)
    if seed % 3 == 0:
        hierarchy = replace(hierarchy, write_backs="apply")
    writes = [draw.random() < 0.3 for _ in trace]
    slow = AnyOracle(hierarchy)
    for address, write in zip(trace, writes, strict=True):
        slow.access(address // 64, write)
    found = misses_of_trace(trace, hierarchy, writes)
    assert _served(found, len(hierarchy.levels)) == slow.served
    assert [level.write_backs for level in found.levels] == slow.write_backs
    assert [level.prefetches for level in found.levels] == slow.prefetches


@pytest.mark.parametrize("seed", range(6))
def test_a_trace_of_several_blocks_with_write_backs_and_arrays(seed):
    draw = random.Random(4000 + seed)
    hierarchy = replace(_hierarchy(draw, plain=True), write_backs=draw.choice(["count", "apply"]))
    trace = [address for _ in range(4) for address in _trace(draw)]
    writes = np.array([draw.choice([0, 0, 1, 7]) for _ in trace], draw.choice([np.uint8, np.int64]))
    middle = sorted(trace)[len(trace) // 2] // 64 * 64
    slow = AnyOracle(hierarchy)
    missed = [0, 0]
    for address, write in zip(trace, writes, strict=True):
        missed[address >= middle] -= slow.served[0]
        slow.access(address // 64, bool(write))
        missed[address >= middle] += slow.served[0]
    found = misses_of_trace(trace, hierarchy, writes, {"low": (0, middle), "high": (middle, 1 << 20)})
    assert _served(found, len(hierarchy.levels)) == slow.served
    assert [level.write_backs for level in found.levels] == slow.write_backs
    first = found.levels[0].by_array
    assert [found.accesses[name] - first[name] for name in ("low", "high")] == missed


@pytest.mark.parametrize("seed", range(120))
def test_nests_against_the_oracle(seed):
    """Every way to walk a nest: jumping or not, quick or general, levels that never evict left out or not."""
    draw = random.Random(2000 + seed)
    try:
        nest = random_nest(draw)
    except NestError:
        pytest.skip("no nest drawn")
    hierarchy = _hierarchy(draw, plain=seed % 2 == 0)
    slow = AnyOracle(hierarchy)
    by_array = dict.fromkeys(nest.arrays, 0)
    for address, write, array in addresses(nest):
        by_array[array] += slow.access(address // 64, write) > 0
    for general in (False, True):
        for jump in (False, True):
            found = misses_of_nest(nest, hierarchy, general=general, jump=jump)
            assert _served(found, len(hierarchy.levels)) == slow.served
            assert dict(found.levels[0].by_array) == by_array
            if general:
                assert [level.write_backs for level in found.levels] == slow.write_backs


@pytest.mark.parametrize("source", [IJK, IKJ, TILED])
@pytest.mark.parametrize(("size", "leading"), [(48, None), (64, None), (64, 80), (50, 52)])
@pytest.mark.parametrize("policy", ["lru", "plru", "fifo"])
@pytest.mark.parametrize("inclusion", INCLUSIONS)
def test_jumps_change_nothing(source, size, leading, policy, inclusion):
    levels = (CacheLevel("L1", 1024, 4, 64, policy), CacheLevel("L2", 8192, 8, 64, policy))
    nest = product(source, size, leading, 16)
    hierarchy = Hierarchy(levels, inclusion, "apply")
    plain, jumped = (misses_of_nest(nest, hierarchy, jump=jump, general=policy != "lru") for jump in (False, True))
    assert jumped.levels == plain.levels
    if leading is None and size == 64 and source is not TILED and policy != "plru":
        assert jumped.jumps > 0


@pytest.mark.parametrize("seed", range(20))
def test_distances_against_the_list(seed):
    draw = random.Random(3000 + seed)
    trace = _trace(draw)
    expected = oracle_distances(trace)
    found = reuse_of_trace(trace)
    assert found.cold == expected.count(-1)
    assert [expected.count(d) for d in range(len(found.distance))] == found.distance.tolist()
    nest = random_nest(draw)
    expected = oracle_distances([address for address, _, _ in addresses(nest)])
    found = reuse_of_nest(nest, [1, 3, 10])
    assert found.cold == expected.count(-1)
    assert [expected.count(d) for d in range(len(found.distance))] == found.distance.tolist()
    assert [sum(row) for row in zip(*found.misses.values(), strict=True)] == [found.misses_at(n) for n in (1, 3, 10)]


def test_many_moments_are_numbered_anew():
    trace = np.random.default_rng(0).integers(0, 300, 400_000).astype(np.uint32) * 64
    found = reuse_of_trace(trace)
    assert found.accesses == 400_000
    tail = oracle_distances(trace[-3000:].tolist())
    again = reuse_of_trace(np.concatenate([trace, trace[-3000:]]))
    assert again.accesses == 403_000
    assert max(tail) <= 300


def test_addresses_far_apart_keep_their_sets():
    draw = random.Random(5)
    hierarchy = Hierarchy((CacheLevel("L1", 64 * 8 * 2, 2), CacheLevel("L2", 64 * 12 * 4, 4)))
    trace = [
        draw.choice([0, 1 << 46, 0x7FFF12340000, (1 << 46) + 64 * 24]) + 64 * draw.randrange(60) for _ in range(2000)
    ]
    assert _served(misses_of_trace(trace, hierarchy), 2) == oracle(trace, hierarchy)
