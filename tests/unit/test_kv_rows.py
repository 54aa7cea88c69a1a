"""Rows over reserved ranges: what is written is read, shared blocks are never written, pages go back."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from memfit.errors import BudgetError
from memfit.runtime.kv_cache import KeyValueStore, LayerShape, block_tokens_for
from memfit.runtime.kv_rows import Rows

SHAPE = LayerShape(2, 128, 128)  # 16 tokens are one page
BLOCK = 2 * 2 * 4096  # two layers, keys and values


def store(blocks: int) -> KeyValueStore:
    made = KeyValueStore(blocks * BLOCK, SHAPE, layers=2)
    made.add_layer(SHAPE)
    made.add_layer(SHAPE)
    return made


def started(made: KeyValueStore, count: int) -> Rows:
    rows = made.rows(count)
    rows.add_layer()
    rows.add_layer()
    return rows


def write(rows: Rows, tokens: int, seed: int) -> np.ndarray:
    data = np.random.default_rng(seed).integers(0, 256, (rows.count, tokens, 2, 128), np.uint8)
    for layer in range(2):
        start = rows.prepare(layer, tokens)
        for stream in (2 * layer, 2 * layer + 1):
            strides = data.strides
            rows.appenders[stream].append(data.ctypes.data, strides[0], strides[2], strides[1], start, tokens)
        rows.wrote(layer, tokens)
    return data


def read(rows: Rows) -> np.ndarray:
    out = []
    for layer in range(2):
        for array in rows.bytes(layer):
            out.append(array.reshape(rows.count, -1, 2, 128)[:, : rows.lengths[layer]].copy())
    assert all((part == out[0]).all() for part in out)
    return out[0]


def test_a_fork_shares_full_blocks_and_neither_sees_the_others_writes() -> None:
    made = store(40)
    rows = started(made, 2)
    first = write(rows, 40, 1)
    assert made.resident == made.used == 2 * 3 * BLOCK
    other = rows.fork()
    assert made.used == 2 * 4 * BLOCK
    one, two = write(rows, 9, 2), write(other, 20, 3)
    assert (read(rows) == np.concatenate([first, one], 1)).all()
    assert (read(other) == np.concatenate([first, two], 1)).all()
    rows.crop(20)  # into a block that both hold
    three = write(rows, 3, 4)
    assert (read(rows) == np.concatenate([first[:, :20], three], 1)).all()
    assert (read(other) == np.concatenate([first, two], 1)).all()
    rows.close()
    other.close()
    assert made.used == made.resident == 0


@pytest.mark.parametrize("chosen", [[1, 0, 1], [2, 2, 2], [0], [0, 0, 1, 1, 2, 2]])
def test_selected_rows_hold_what_the_chosen_ones_held(chosen: list[int]) -> None:
    made = store(60)
    rows = started(made, 3)
    first = write(rows, 37, 1)
    rows.select(chosen)
    more = write(rows, 5, 2)
    assert (read(rows) == np.concatenate([first[chosen], more], 1)).all()
    rows.close()
    assert made.used == made.resident == 0


def test_published_blocks_stay_are_found_and_go_when_room_is_needed() -> None:
    made = store(6)
    rows = started(made, 1)
    first = write(rows, 40, 1)
    tokens = np.arange(40, dtype=np.int32)
    assert rows.publish(0, tokens) == 2
    rows.close()
    assert (made.used, made.kept, made.resident) == (0, 2 * BLOCK, 2 * BLOCK)
    found = made.match(tokens)
    assert len(found) == 2
    again = made.rows(1, [found])
    assert (read(again) == first[:, :32]).all()
    again.crop(20)  # a published block is never written in place
    write(again, 4, 2)
    assert (read(made.rows(1, [made.match(tokens)])) == first[:, :32]).all()
    again.close()
    gc.collect()
    big = started(made, 1)
    write(big, 96, 3)
    assert made.kept == 0
    assert made.match(tokens) == []
    assert made.resident == made.used == 6 * BLOCK


def test_the_budget_is_kept_exactly_and_the_error_names_the_smallest_that_works() -> None:
    made = store(6)
    rows = started(made, 2)
    kept = write(rows, 48, 1)
    with pytest.raises(BudgetError) as caught:
        rows.prepare(0, 1)
    assert (caught.value.needed, caught.value.allowed) == (8 * BLOCK, 6 * BLOCK)
    assert (read(rows) == kept).all()
    assert made.resident == 6 * BLOCK
    enough = KeyValueStore(caught.value.needed, SHAPE, layers=2)
    enough.add_layer(SHAPE)
    enough.add_layer(SHAPE)
    write(started(enough, 2), 49, 1)
    with pytest.raises(BudgetError, match="one block of 16 tokens"):
        KeyValueStore(BLOCK - 1, SHAPE, layers=2)


def test_blocks_are_whole_pages_for_any_shape() -> None:
    for heads in range(1, 9):
        for size in (16, 32, 48, 64, 80, 128, 160, 256):
            tokens = block_tokens_for(LayerShape(heads, size, size), 4096)
            assert tokens % 16 == 0
            assert tokens * heads * size % 4096 == 0
            assert tokens == 16 or (tokens - 16) * heads * size % 4096 or tokens <= 256


def mapped() -> int:
    return Path("/proc/self/maps").read_text().count("memfit-kv")


def test_nothing_stays_mapped_after_close_or_collection() -> None:
    gc.collect()
    before = mapped()
    made = store(8)
    rows = started(made, 2)
    write(rows, 20, 1)
    assert mapped() > before
    view = rows.bytes(0)[0]
    rows.close()
    assert mapped() == before
    assert not view[:100].any()  # zeros, not a fault
    other = started(made, 1)
    write(other, 20, 1)
    del other
    gc.collect()
    assert mapped() == before
    assert made.used == made.resident == 0


def test_a_forked_child_reads_and_cannot_write_or_free() -> None:
    made = store(8)
    rows = started(made, 1)
    data = write(rows, 20, 1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            same = bool((read(rows) == data).all())
            try:
                rows.prepare(0, 100)
            except RuntimeError:
                rows.close()
                code = 0 if same else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert (read(rows) == data).all()
    assert made.resident == 2 * BLOCK


def test_appending_outside_of_a_row_is_refused() -> None:
    rows = started(store(4), 1)
    data = np.zeros((1, 1, 2, 128), np.uint8)
    with pytest.raises(IndexError):
        rows.appenders[0].append(data.ctypes.data, 256, 128, 256, 64, 1)
    with pytest.raises(IndexError):
        rows.appenders[0].append(data.ctypes.data, 256, 128, 256, -1, 1)


def test_a_refused_copy_leaves_everything_as_it_was() -> None:
    made = store(6)
    rows = started(made, 1)
    first = write(rows, 48, 1)
    other = rows.fork()
    full = started(made, 1)
    write(full, 33, 3)
    rows.crop(40)
    before = (made.table.held, made.used)
    with pytest.raises(BudgetError):
        rows.prepare(0, 1)
    assert (made.table.held, made.used) == before
    assert (read(rows) == first[:, :40]).all()
    full.close()
    more = write(rows, 3, 4)
    assert (read(rows) == np.concatenate([first[:, :40], more], 1)).all()
    assert (read(other) == first).all()
