"""Variants of a kernel compute the same: the same elements read and written, the same numbers from the compiled code."""

from __future__ import annotations

import random
import shutil
from collections import Counter

import numpy as np
import pytest

from memfit.analyses.cache_misses import misses_of_nest
from memfit.analyses.footprints import Footprints
from memfit.analyses.patterns import kernel_of, parse_pattern
from memfit.errors import VerifyError
from memfit.fitting.timed_kernel import compiled, time_chains, time_variants
from memfit.ir.kernel import Variant, lower, original
from memfit.ir.kernel_chain import KernelChain, as_written, fused_chain, lower_chain, one_pass
from memfit.machine.cache import parse_hierarchy
from memfit.testing.cache_oracle import oracle
from memfit.testing.nests import addresses

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
PATTERNS = ["matmul:7,9,11", "conv:3,8,9,4,3", "conv:4,7,7,5,3,nhwc", "conv:8,6,6,16,3,nchw8", "reduction:9,13,1",
            "transpose:12,17", "attention:10,6"]  # fmt: skip


def _variant(draw, kernel):
    order = [name for name, _ in kernel.loops]
    draw.shuffle(order)
    tiles = tuple(
        (name, draw.randint(1, extent)) for name, extent in draw.sample(kernel.loops, draw.randint(0, len(order)))
    )
    leading = {
        name: array.shape[-1] + draw.randint(0, 5)
        for name, array in kernel.arrays.items()
        if len(array.shape) > 1 and draw.random() < 0.5
    }
    return Variant(tuple(order), tiles, leading)


def _elements(kernel, variant):
    """How often each element of an array that only one place in the loops names is read and written."""
    nest = lower(kernel, variant)
    steps = {name: array.steps() for name, array in nest.arrays.items()}
    found = Counter()
    for address, write, name in addresses(nest):
        at, place = address - nest.bases[name], []
        for step in steps[name]:
            place.append(at // step)
            at %= step
        found[name, write, tuple(place)] += 1
    return found


@pytest.mark.parametrize("seed", range(20))
def test_every_variant_touches_the_same_elements(seed):
    draw = random.Random(seed)
    kernel = parse_pattern(PATTERNS[seed % len(PATTERNS)])[0]
    turned = _elements(kernel, _variant(draw, kernel))
    assert set(_elements(kernel, original(kernel))) <= set(turned)


@pytest.mark.parametrize("seed", range(8))
def test_the_nest_of_a_variant_against_the_oracle(seed):
    draw = random.Random(100 + seed)
    kernel = parse_pattern(PATTERNS[seed % len(PATTERNS)])[0]
    nest, levels = lower(kernel, _variant(draw, kernel)), parse_hierarchy("1KiB/4,4KiB/8")
    served = oracle([address for address, _, _ in addresses(nest)], levels)
    found = misses_of_nest(nest, levels)
    assert [level.misses for level in found.levels] == [served[1] + served[2], served[2]]


@needs_compiler
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_compiled_variants_give_the_same_numbers(pattern):
    draw = random.Random(pattern)
    for kernel in parse_pattern(pattern):
        variants = [original(kernel), *(_variant(draw, kernel) for _ in range(4))]
        timed = time_variants(kernel, variants, rounds=3, budget=0.0)  # raises where they differ
        assert all(t.seconds > 0 and t.low <= t.seconds <= t.high for t in timed)


@needs_compiler
def test_the_compiled_product_is_the_product(tmp_path):
    from memfit.fitting.kernel_source import source_of

    kernel = parse_pattern("matmul:6,7,8")[0]
    library = compiled(source_of(kernel, Variant(("k", "i", "j"), (("j", 4),)), "f"), tmp_path)
    draw = np.random.default_rng(0)
    a, b, c = draw.random((6, 8), np.float32), draw.random((8, 7), np.float32), np.zeros((6, 7), np.float32)
    import ctypes

    library.f(*(ctypes.c_void_p(x.ctypes.data) for x in (a, b, c)))
    np.testing.assert_allclose(c, a @ b, rtol=1e-5)


@needs_compiler
def test_a_wrong_program_is_not_timed():
    right = kernel_of("sum", [("i", 8)], "S[i]", ["A[i]", "B[i]"], combine="sum")
    wrong = kernel_of("sum", [("i", 8)], "S[i]", ["A[i]", "B[i]"], combine="product")
    with pytest.raises(VerifyError, match="first variant"):
        time_chains([as_written([right]), as_written([wrong])], rounds=3)


@needs_compiler
@pytest.mark.parametrize("tile", [1, 3, 4, 8])
def test_fused_kernels_give_the_same_numbers(tile):
    kernels = parse_pattern("attention:16,5")
    fused = fused_chain(kernels, [original(kernel) for kernel in kernels], "i", tile)
    assert fused is not None
    assert fused.arrays()["S"].shape == (tile, 16)
    turned = fused_chain(kernels, [Variant(("d", "i", "j")), Variant(("i", "j", "d"), (), {"V": 8})], "i", tile)
    time_chains([as_written(kernels), fused, turned], rounds=3, budget=0.0)
    chain = parse_pattern("elementwise:100,4")
    single = one_pass(chain)
    assert single is not None
    time_chains([as_written(chain), KernelChain((single,), (original(single),))], rounds=3, budget=0.0)


def test_what_cannot_be_fused():
    scores, values = parse_pattern("attention:16,5")
    orders = [original(scores), original(values)]
    assert fused_chain([scores, values], orders, "j", 4) is None  # the second kernel reads every column
    assert fused_chain([scores, values], orders, "i", 16) is None  # one tile is no fusion
    assert one_pass([scores, values]) is None
    assert one_pass(parse_pattern("elementwise:100,1")) is None


def test_fusing_keeps_the_scores_in_the_cache():
    kernels, levels = parse_pattern("attention:64,8"), parse_hierarchy("8KiB/8")
    fused = fused_chain(kernels, [original(kernel) for kernel in kernels], "i", 4)
    before, after = (misses_of_nest(lower_chain(chain), levels).levels[0] for chain in (as_written(kernels), fused))
    assert before.by_array["S"] >= 2 * 64 * 64 // 16
    assert after.by_array["S"] < before.by_array["S"] // 4


@pytest.mark.parametrize(
    ("pattern", "order", "tiles"),
    [
        ("matmul:64", ("i", "k", "j"), ()),
        ("matmul:64", ("i", "k", "j"), (("i", 16), ("k", 16), ("j", 16))),
        ("matmul:100", ("i", "j", "k"), ()),
        ("elementwise:10000,1", ("i",), ()),
        ("conv:8,18,18,8,3", ("k", "c", "r", "s", "y", "x"), ()),
    ],
)
def test_footprints_are_near_where_nothing_conflicts(pattern, order, tiles):
    kernel, levels = parse_pattern(pattern)[0], parse_hierarchy("4KiB/64")
    variant = Variant(order, tiles)
    exact = misses_of_nest(lower(kernel, variant), levels).levels[0].misses
    assert Footprints(kernel, levels).misses(variant)[0] == pytest.approx(exact, rel=0.35)
