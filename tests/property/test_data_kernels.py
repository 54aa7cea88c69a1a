"""Kernels of data sets against their twins: the order of rows, the gather, moments, quantiles, reads past the cache."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit import _core
from memfit.data.column_file import numpy_dtype
from memfit.data.gather import ELEMENTS, FIRST_TO_LAST, KEEP_FIRST, LAST_TO_FIRST, Recipe, brain_bits, brain_values
from memfit.data.moments import Moments
from memfit.data.order import Order, distinct_share, part_of
from memfit.data.quantiles import RELATIVE_ERROR, Quantiles
from memfit.data.schema import Column


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(0, 1 << 63),
    st.integers(0, 5),
    st.integers(0, 40),
    st.sampled_from([1, 2, 7, 1 << 40]),
)
def test_an_order_is_a_permutation_and_its_twin_agrees(
    rows: int, seed: int, epoch: int, chunk: int, opened: int
) -> None:
    order = Order(rows, seed, epoch, chunk, opened)
    whole = order.at(0, rows)
    assert sorted(whole.tolist()) == list(range(rows))
    assert (whole == order.at_slowly(0, rows)).all()
    middle = rows // 3
    assert (order.at(middle, rows - middle) == whole[middle:]).all()
    if chunk and rows > 50:
        assert (Order(rows, seed, epoch + 1, chunk, opened).at(0, rows) != whole).any()


def test_a_block_shuffle_states_its_randomness() -> None:
    rows = 1_281_167
    assert distinct_share(Order(rows, 0, 0)) > 0.99
    assert distinct_share(Order(rows, 0, 0, 28, 1024)) > 0.965
    assert distinct_share(Order(rows, 0, 0, 28, 16)) < 0.5
    assert distinct_share(Order(rows, 0, 0, 0)) < 0.05


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 200), st.integers(1, 20), st.integers(1, 5), st.integers(1, 5), st.integers(0, 4), st.integers(1, 9),
    st.sampled_from(["keep", "pad", "drop"]),
)  # fmt: skip
def test_no_row_twice_or_missing_over_a_change_of_ranks(
    rows: int, batch: int, ranks: int, later: int, steps: int, other: int, last: str
) -> None:
    seen: list[int] = []
    position, count, size = 0, ranks, batch
    step = 0
    while position < rows:
        if step == steps:
            count, size = later, other
        parts = [part_of(position, rows, size, rank, count, last) for rank in range(count)]
        assert len({after for _, _, after in parts}) == 1
        if last != "keep":
            assert len({stop - start for start, stop, _ in parts}) == 1
        for start, stop, _ in parts:
            seen.extend(range(start, stop))
        assert parts[0][2] > position
        position, step = parts[0][2], step + 1
    if last == "pad":
        assert set(seen) == set(range(rows))
    else:
        assert seen == sorted(set(seen))
        assert seen == list(range(len(seen)))
        assert len(seen) == rows or last == "drop"


NUMBERS = [name for name in ELEMENTS if name != "bf16"]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NUMBERS), st.sampled_from([*NUMBERS, "bf16"]), st.integers(0, 3), st.integers(1, 5), st.integers(1, 300),
    st.booleans(), st.booleans(), st.integers(0, 1 << 30),
)  # fmt: skip
def test_a_gather_is_its_twin_to_the_bit(
    source: str, target: str, layout: int, channels: int, inner: int, affine: bool, portable: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, count = 6, 4
    values = rng.integers(0, 100, (rows, channels * inner)).astype(numpy_dtype(source))
    if source in ("f2", "f4", "f8"):
        values = (values / 7 - (0 if target.startswith("u") else 5)).astype(values.dtype)
        if target in ("f2", "f4", "f8", "bf16"):
            values.reshape(-1)[rng.integers(0, values.size, 3)] = [np.nan, np.inf, 3e-8]
    numbers = rng.random((2, channels)) + (0.5 if target.startswith("u") else -0.5)
    scale, shift = (tuple(numbers[0]), tuple(numbers[1])) if affine else ((), ())
    recipe = Recipe(source, target, layout, channels, inner, (channels * inner,), scale, shift)
    offsets = rng.integers(0, rows, count) * recipe.row_bytes
    made = np.full(count * recipe.made_bytes, 7, np.uint8)
    _core.gather_force_portable(portable)
    try:
        recipe.run(values.reshape(-1).view(np.uint8), offsets, made)
    finally:
        _core.gather_force_portable(False)
    with np.errstate(all="ignore"):
        wanted = recipe.run_slowly(values.reshape(-1).view(np.uint8), offsets)
    found = made.view(recipe.made_dtype).reshape(wanted.shape)
    np.testing.assert_array_equal(
        brain_values(found) if target == "bf16" else found, brain_values(wanted) if target == "bf16" else wanted
    )


def test_large_batches_are_written_past_the_caches_with_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 101, 103, 3), dtype=np.uint8)
    for layout in (LAST_TO_FIRST, KEEP_FIRST, FIRST_TO_LAST, 0):
        for target in ("f4", "f2", "bf16"):
            recipe = Recipe("u1", target, layout, 3, 101 * 103, (3, 101, 103), (0.1, 0.2, 0.3), (1, 2, 3))
            made = np.empty(80 * recipe.made_bytes, np.uint8)
            offsets = rng.integers(0, 40, 80) * recipe.row_bytes
            recipe.run(images.reshape(-1), offsets, made)
            assert (made.view(recipe.made_dtype) == recipe.run_slowly(images.reshape(-1), offsets).reshape(-1)).all()


def test_a_row_outside_of_the_data_is_refused() -> None:
    recipe = Recipe("f4", "f4", 0, 4, 1, (4,))
    base, made = np.zeros(64, np.uint8), np.zeros(16, np.uint8)
    for offset in (-16, 56, 2, 1 << 62):
        with pytest.raises(IndexError):
            recipe.run(base, np.array([offset]), made)


def test_half_and_brain_conversions_match_everywhere() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 18, dtype=np.uint32)
    values = np.concatenate(
        [bits.view(np.float32), np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)]
    )
    offsets = np.zeros(1, np.int64)
    for target in ("f2", "bf16"):
        for portable in (False, True):
            recipe = Recipe(
                "f4", target, 0, len(values), 1, (len(values),), (1.0,) * len(values), (-0.0,) * len(values)
            )
            made = np.empty(recipe.made_bytes, np.uint8)
            _core.gather_force_portable(portable)
            recipe.run(values.view(np.uint8), offsets, made)
            _core.gather_force_portable(False)
            found = made.view(recipe.made_dtype)
            with np.errstate(over="ignore"):
                wanted = brain_bits(values) if target == "bf16" else values.astype(np.float16)
            there = ~np.isnan(values)
            np.testing.assert_array_equal(found[there], wanted[there])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 3000), st.floats(-1e6, 1e6), st.booleans(), st.integers(0, 1 << 30))
def test_moments_stay_near_float64_wherever_the_mean_lies(
    columns: int, rows: int, mean: float, holes: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal((rows, columns)) + mean).astype(np.float32)
    if holes:
        values[rng.random(values.shape) < 0.1] = np.nan
    column = Column("x", "f4", (columns,))
    whole, twin, parts = Moments(column), Moments(column), Moments(column)
    whole.add(values)
    twin.add_slowly(values)
    for part in np.array_split(values, 3):
        other = Moments(column)
        other.add(part)
        parts.merge(other)
    std = np.maximum(np.nan_to_num(twin.std), 1e-3)
    for found in (whole, parts):
        assert (found.count == twin.count).all()
        assert np.nan_to_num(np.abs(found.mean - twin.mean) / std).max() < 1e-5 * max(1.0, 1e-4 * abs(mean))
        np.testing.assert_allclose(found.std, twin.std, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found.least, twin.least)
        np.testing.assert_array_equal(found.greatest, twin.greatest)


def test_an_outlier_or_a_far_start_does_not_cost_digits() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((100_000, 4)).astype(np.float32)
    values[0] = 1e8
    values[50_000:, 1] += 1e4
    values[:, 2] = np.sort(values[:, 2]) * 1000
    moments = Moments(Column("x", "f4", (4,)))
    moments.add(values)
    wide = values.astype(np.float64)
    assert (np.abs(moments.mean - wide.mean(0)) / wide.std(0)).max() < 1e-6
    np.testing.assert_allclose(moments.std, wide.std(0), rtol=1e-6)


@pytest.mark.parametrize("channels", ["first", "last"])
def test_bytes_are_counted_exactly(channels: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 9, 11), dtype=np.uint8)
    stored = images if channels == "first" else np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    column = Column("image", "u1", stored.shape[1:], channels=channels)
    moments, counts, slow = Moments(column), Quantiles(column), Quantiles(column)
    moments.add(stored)
    counts.add(stored)
    slow.add_slowly(stored)
    assert (counts.counts == slow.counts).all()
    by_channel = images.swapaxes(0, 1).reshape(3, -1)
    np.testing.assert_allclose(moments.mean, by_channel.mean(1), rtol=1e-15)
    np.testing.assert_allclose(moments.std, by_channel.std(1), rtol=1e-13)
    np.testing.assert_array_equal(counts.at([0.1, 0.5]), np.quantile(by_channel, [0.1, 0.5], axis=1))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 500), st.integers(0, 1 << 30))
def test_quantiles_keep_their_error_and_the_second_pass_is_exact(columns: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal((rows, columns)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    counts, slow = Quantiles(Column("x", "f4", (columns,))), Quantiles(Column("x", "f4", (columns,)))
    counts.add(values)
    slow.add_slowly(values)
    assert (counts.counts == slow.counts).all()
    shares = [0.0, 0.25, 0.5, 0.9, 1.0]
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64)
        wanted = np.array(
            [[np.quantile(c[~np.isnan(c)], s) if (~np.isnan(c)).any() else np.nan for c in wide.T] for s in shares]
        )
    near = np.nanmax(np.abs(wide), initial=0) * RELATIVE_ERROR + 1e-30
    assert np.nan_to_num(np.abs(counts.at(shares) - wanted)).max() <= near
    np.testing.assert_allclose(counts.refine(np.array_split(values, 2), shares), wanted, rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize("ring", [True, False])
def test_pieces_of_a_file_are_read_whole(tmp_path: Path, ring: bool) -> None:
    data = np.random.default_rng(0).integers(0, 256, 1_000_001, dtype=np.uint8)
    data.tofile(tmp_path / "f")
    file = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        offsets = np.array([0, 999_000, 4096, 500_000, *range(0, 200_000, 1000)], np.int64)
        lengths = np.array([4096, 2000, 100_000, 1, *([1000] * 200)], np.int64)
        targets = np.cumsum(lengths) - lengths
        memory = np.zeros(int(lengths.sum()), np.uint8)
        assert _core.read_pieces(file, offsets, lengths, targets, memory, len(data), 16, ring) == (-1, 0)
        for o, n, t in zip(offsets, lengths, targets, strict=True):
            there = data[o : o + n]
            assert (memory[t : t + len(there)] == there).all()
        piece, error = _core.read_pieces(file, offsets, lengths, targets, memory, len(data) + 10_000, 16, ring)
        assert (piece, error) == (1, 0)
    finally:
        os.close(file)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        piece, error = _core.read_pieces(folder, offsets, lengths, targets, memory, len(data), 16, ring)
    finally:
        os.close(folder)
    assert piece >= 0
    assert error == errno.EISDIR


@pytest.mark.skipif(not _core.ring_here(), reason="no io_uring here")
def test_reads_under_way_end_before_a_refused_submission_is_reported() -> None:
    """A pipe answers late: pieces that the system took are still to be written when the next submission fails."""
    reading, writing = os.pipe()
    pieces = 8
    lengths = np.full(pieces, 4096, np.int64)
    memory = np.zeros(pieces * 4096, np.uint8)
    offsets = np.zeros(pieces, np.int64)
    os.write(writing, b"\x01" * 4096)  # one read ends; its place in the ring is given to the next piece, and that fails
    later = threading.Timer(0.3, os.write, (writing, b"\x01" * 4096 * 3))
    later.start()
    try:
        answer = _core.read_pieces(
            reading, offsets, lengths, np.arange(pieces) * 4096, memory, 1 << 40, 4, True, refused=1
        )
        there = int(memory.sum())
    finally:
        later.join()
        os.close(reading)
        os.close(writing)
    assert answer[0] >= 0
    assert answer[1] == errno.EIO
    assert there == 4 * 4096, "something was still to be written"


@pytest.mark.parametrize(
    ("scale", "shift"), [(1 / 58.4, -2.1), (257 / 256, 0.0), (1 / 256, 0.5), (1e-12, -3e-11), (0.0, 1.5), (-2.0, 1e20)]
)
@pytest.mark.parametrize("shifted", [0, 3])
def test_long_runs_of_bytes_become_the_twins_bfloat16(scale: float, shift: float, shifted: int) -> None:
    """257/256 and 1/256 have bytes that lie just between two numbers; the others have none."""
    base = np.random.default_rng(0).integers(0, 256, 20_000 + shifted, dtype=np.uint8)
    base[shifted : shifted + 256] = np.arange(256)
    recipe = Recipe("u1", "bf16", KEEP_FIRST, 2, 5000, (2, 5000), (scale, -scale), (shift, shift))
    offsets = np.array([shifted, shifted + 10_000], np.int64)
    made = np.empty(2 * recipe.made_bytes, np.uint8)
    recipe.run(base, offsets, made)
    np.testing.assert_array_equal(made.view(np.uint16).reshape(2, 2, 5000), recipe.run_slowly(base, offsets))
