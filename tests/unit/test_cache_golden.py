"""Misses that four independent simulators agree on; see the table in benchmarks/results/locality.json."""

from __future__ import annotations

import numpy as np
import pytest

from memfit.analyses.cache_misses import misses_of_nest, misses_of_trace
from memfit.analyses.reuse import reuse_of_nest, reuse_of_trace
from memfit.machine.cache import Hierarchy, parse_hierarchy
from memfit.testing.nests import IJK, IKJ, KNOWN_MISSES, TILED, product

ZEN5 = parse_hierarchy("48KiB/12,1MiB/16,32MiB/16")


@pytest.mark.parametrize(("source", "size", "leading", "accesses", "misses", "written"), KNOWN_MISSES)
def test_known_rows(source, size, leading, accesses, misses, written):
    found = misses_of_nest(product(source, size, leading), ZEN5)
    assert found.total == accesses
    assert tuple(level.misses for level in found.levels) == misses
    if written is not None:
        assert found.levels[0].write_backs == written
    assert sum(found.levels[0].by_array.values()) == misses[0]
    assert found.levels[1].accesses == misses[0]


@pytest.mark.parametrize(("source", "leading"), [(IJK, 256), (IKJ, 256), (TILED, 256)])
def test_applied_write_backs_leave_demand_misses_alone(source, leading):
    applied = Hierarchy(ZEN5.levels, write_backs="apply")
    counted = misses_of_nest(product(source, 256, leading), ZEN5)
    found = misses_of_nest(product(source, 256, leading), applied)
    assert [level.misses for level in found.levels] == [level.misses for level in counted.levels]
    assert found.levels[0].write_backs == counted.levels[0].write_backs


@pytest.mark.parametrize(
    ("source", "known"),
    [
        (IKJ, {48: 1_056_768, 768: 1_056_768, 4096: 1_056_768, 16384: 12_288}),
        (IJK, {48: 17_891_328, 768: 1_056_768, 4096: 1_056_768, 16384: 12_288}),
    ],
)
def test_fully_associative_rows(source, known):
    reuse = reuse_of_nest(product(source, 256), list(known))
    assert {size: reuse.misses_at(size) for size in known} == known
    assert reuse.cold == 12_288
    assert [sum(counts) for counts in zip(*reuse.misses.values(), strict=True)] == list(known.values())


def test_a_store_that_hits_is_a_use():
    """64 sets x 12: streaming loads, and eight stores that keep their lines only where a store refreshes the order."""
    step = np.arange(20_000, dtype=np.int64)
    loads = (1 << 30) + 64 * step
    stores = (1 << 20) + 64 * ((step % 64)[:, None] + 64 * np.arange(8))
    addresses = np.concatenate([loads[:, None], stores], axis=1).ravel()
    writes = np.tile(np.array([0] + [1] * 8, np.uint8), len(step))
    found = misses_of_trace(addresses, parse_hierarchy("48KiB/12"), writes, {"stores": (1 << 20, 1 << 21)})
    assert found.levels[0].misses == 20_512
    assert found.levels[0].by_array == {"stores": 512, "other": 20_000}
    assert found.accesses == {"stores": 160_000, "other": 20_000}


@pytest.mark.parametrize("exponent", [0.7, 1.0])
def test_a_sample_states_an_error_that_holds(exponent):
    draw = np.random.default_rng(1)
    chances = np.cumsum(np.arange(1, 50_001) ** -exponent)
    rows = draw.permutation(50_000)[np.searchsorted(chances, draw.random(400_000) * chances[-1])]
    exact = reuse_of_trace(rows.astype(np.uint32) * np.uint32(64))
    sampled = reuse_of_trace(rows.astype(np.uint64) * np.uint64(64), sample=0.1)
    assert exact.error == 0 < sampled.error < 0.2
    assert sampled.accesses == exact.accesses == 400_000
    errors = [abs(sampled.misses_at(1 << n) - exact.misses_at(1 << n)) / 400_000 for n in range(16)]
    assert sum(errors) / len(errors) < sampled.error


def test_lines_far_apart_have_the_same_distances():
    rows = np.random.default_rng(2).integers(0, 300, 5000).astype(np.uint64)
    near, far = reuse_of_trace(rows * np.uint64(64)), reuse_of_trace(rows * np.uint64(1 << 40))
    assert near.cold == far.cold == 300
    assert near.distance.tolist() == far.distance.tolist()
