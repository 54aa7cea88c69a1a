"""Packed weights: packing and its inverse, the native product against its twin, the byte model against real bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit import _core
from memfit.passes.packing import PLANES, pack, unpack
from memfit.passes.quantize import (
    dequantize,
    from_bfloat16,
    packed_bytes,
    product_twin,
    quantize,
    relative_error,
    to_bfloat16,
)

_BITS = st.sampled_from(sorted(PLANES))
_SHAPE = st.tuples(st.integers(1, 40), st.integers(1, 140))


@settings(max_examples=60, deadline=None)
@given(_BITS, _SHAPE, st.integers(0, 9))
def test_unpacking_gives_back_what_was_packed(bits: int, shape: tuple[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8)
    tiles = pack(values, bits)
    assert tiles.nbytes == -(-shape[0] // 8) * -(-shape[1] // 32) * 32 * bits
    assert np.array_equal(unpack(tiles, *shape, bits), values)


def _product(packed: object, x: np.ndarray, bias: np.ndarray | None, threads: int = 1) -> np.ndarray:
    tokens = len(x)
    out = np.zeros(tokens * packed.rows, np.float32)
    scratch = np.zeros(_core.lowbit_activation_bytes(tokens, packed.columns), np.uint8)
    _core.lowbit_product(
        packed.tiles.reshape(-1), packed.scales.reshape(-1), packed.zeros.reshape(-1), packed.rows, packed.columns,
        packed.bits, packed.group, np.ascontiguousarray(x).reshape(-1), tokens, bias, out, scratch, threads,
    )  # fmt: skip
    return out.reshape(tokens, packed.rows)


@pytest.mark.parametrize("portable", [False, True])
@settings(max_examples=60, deadline=None)
@given(_BITS, _SHAPE, st.integers(0, 70), st.sampled_from([32, 64, 128]), st.booleans(), st.integers(0, 9))
def test_the_native_product_equals_its_twin(
    portable: bool, bits: int, shape: tuple[int, int], tokens: int, group: int, with_bias: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weight = random.normal(size=shape).astype(np.float32)
    x = (random.normal(size=(tokens, shape[1])) * random.choice([1e-4, 1, 1e4])).astype(np.float32)
    bias = random.normal(size=shape[0]).astype(np.float32) if with_bias else None
    packed = quantize(weight, bits, group)
    assert packed.nbytes == packed_bytes(*shape, bits, group)
    _core.lowbit_force_portable(portable)
    try:
        found, again = _product(packed, x, bias), _product(packed, x, bias, threads=3)
    finally:
        _core.lowbit_force_portable(False)
    expected = product_twin(packed, x, bias)
    size = np.abs(expected).max(initial=1e-30)
    assert np.abs(found - expected).max(initial=0) <= 2e-5 * size + 1e-6
    assert np.array_equal(found, again)


def test_threads_do_not_change_the_result() -> None:
    random = np.random.default_rng(0)
    packed = quantize(random.normal(size=(512, 1024)).astype(np.float32), 4, 32)
    x = random.normal(size=(70, 1024)).astype(np.float32)
    assert np.array_equal(_product(packed, x, None, 1), _product(packed, x, None, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("portable", [False, True])
def test_a_value_that_is_no_number_reaches_the_output(value: float, portable: bool) -> None:
    packed = quantize(np.ones((8, 70), np.float32), 4, 32)
    x = np.ones((2, 70), np.float32)
    for at in (3, 66):
        x[1] = 1
        x[1, at] = value
        _core.lowbit_force_portable(portable)
        try:
            out = _product(packed, x, None)
        finally:
            _core.lowbit_force_portable(False)
        assert np.isfinite(out[0]).all()
        assert not np.isfinite(out[1]).any()


def test_arrays_that_do_not_fit_are_refused() -> None:
    packed = quantize(np.ones((8, 32), np.float32), 4, 32)
    with pytest.raises(ValueError, match="do not fit together"):
        _core.lowbit_product(
            packed.tiles.reshape(-1)[1:], packed.scales.reshape(-1), packed.zeros.reshape(-1), 8, 32, 4, 32,
            np.ones(32, np.float32), 1, None, np.zeros(8, np.float32), np.zeros(400, np.uint8), 1,
        )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(_BITS, st.integers(0, 9))
def test_more_bits_never_give_more_error(bits: int, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(16, 128)).astype(np.float32)
    errors = [relative_error(weight, quantize(weight, width, 32)) for width in sorted(PLANES)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


def test_columns_that_matter_are_rounded_better() -> None:
    random = np.random.default_rng(1)
    weight = random.standard_t(2, size=(64, 64)).astype(np.float32)
    importance = np.where(np.arange(64) % 4 == 0, 100.0, 0.01).astype(np.float32)
    aware, blind = quantize(weight, 3, 32, importance), quantize(weight, 3, 32)
    assert relative_error(weight, aware, importance) < relative_error(weight, blind, importance)


@pytest.mark.parametrize("fill", [0.0, 1e-30, -3.0, 1e30])
def test_constant_weights_come_back(fill: float) -> None:
    weight = np.full((9, 33), fill, np.float32)
    assert np.allclose(dequantize(quantize(weight, 4, 32)), weight, rtol=0.01, atol=1e-25)


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -2.5, 0.0], np.float32)
    assert from_bfloat16(to_bfloat16(values)).tolist() == [1.0, 1.0, 1.015625, -2.5, 0.0]
