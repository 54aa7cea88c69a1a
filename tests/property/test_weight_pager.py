"""The pager under random programs: every access finds the bytes of the file, never more frames than there are."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.errors import BudgetError, MemfitError, WeightFileError
from memfit.runtime.page_frames import PageFrames
from memfit.runtime.weight_file import WeightFiles
from memfit.runtime.weight_layout import WeightLayout, lay_out
from memfit.runtime.weight_order import UseOrder
from memfit.runtime.weight_pager import WeightPager
from memfit.runtime.weight_schedule import schedule_weights

save = pytest.importorskip("safetensors.numpy").save_file
CHUNK = 1 << 14
SIZES = (3, 20_000, 16_384, 1, 70_000, 5_000, 0, 33_333, 16_320, 40_000)
RNG = np.random.default_rng(0)
DATA = {f"w{i}": RNG.integers(0, 255, size, dtype=np.uint8) for i, size in enumerate(SIZES)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pager") / "w.safetensors"
    save(DATA, str(path))
    return path


def pager(path: Path, order: list[tuple[int, ...]], frames: int) -> WeightPager:
    files = WeightFiles(path)
    tensors = [files.tensors[name][1] for name in DATA]
    layout = lay_out(list(DATA), list(SIZES), [(0, tensor.begin) for tensor in tensors], CHUNK)
    needed = max(len(layout.access(access)) for access in order)
    schedule = schedule_weights([layout.access(access) for access in order], max(frames, needed))
    return WeightPager(layout, files, order, schedule)


def content(pager: WeightPager, weight: int) -> bytes:
    return ctypes.string_at(pager.memory.base + pager.layout.begin[weight], SIZES[weight])


accesses = st.lists(st.integers(0, len(SIZES) - 1), min_size=1, max_size=2, unique=True).map(lambda w: tuple(sorted(w)))


@settings(max_examples=60, deadline=None)
@given(st.lists(accesses, min_size=1, max_size=12), st.lists(accesses, max_size=30), st.integers(0, 9))
def test_every_access_finds_its_bytes(
    path: Path, order: list[tuple[int, ...]], surprises: list[tuple[int, ...]], extra: int
) -> None:
    layout = lay_out(list(DATA), list(SIZES), [(0, 0)] * len(SIZES), CHUNK)
    needed = max(len(layout.access(access)) for access in [*order, *surprises])
    served = pager(path, order, needed + extra)
    try:
        for access in [*order, *order, *surprises, *order]:
            chunks = served.borrow(access)
            for weight in access:
                assert content(served, weight) == DATA[f"w{weight}"].tobytes()
            assert served.memory.taken <= served.frames
            served.release(chunks, lambda: True)
    finally:
        served.close()


def test_held_chunks_stay_until_they_are_free(path: Path) -> None:
    order = [(w,) for w in range(len(SIZES))]
    served = pager(path, order, 11)
    held = True
    chunks = served.borrow((4,))
    served.release(chunks, lambda: not held)
    for access in order * 3:
        got = served.borrow(access)
        assert content(served, 4) == DATA["w4"].tobytes()
        served.release(got, lambda: True)
    held = False

    def hold_all() -> None:
        for access in order * 2:
            served.release(served.borrow(access), lambda: False)

    with pytest.raises(BudgetError, match="views of weights"):
        hold_all()
    served.close()


def test_several_threads(path: Path) -> None:
    order = [(w,) for w in range(len(SIZES))]
    served = pager(path, order, 14)
    wrong: list[int] = []

    def work(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for weight in draw.integers(0, len(SIZES), 150).tolist():
            chunks = served.borrow((weight,))
            if content(served, weight) != DATA[f"w{weight}"].tobytes():
                wrong.append(weight)
            served.release(chunks, lambda: True)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    served.close()


def test_a_steady_pass_reads_what_was_planned(path: Path) -> None:
    order = [(w,) for w in range(len(SIZES))]
    served = pager(path, order, 9)
    for access in order * 3:
        served.release(served.borrow(access), lambda: True)
    before = served.snapshot()
    for access in order * 10:
        served.release(served.borrow(access), lambda: True)
    read = served.snapshot().since(before).read // CHUNK
    assert abs(read - 10 * served.schedule.reads) <= served.schedule.reads + served.schedule.ahead
    served.close()


def test_an_error_of_the_reader_reaches_the_program(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "w.safetensors"
    copy.write_bytes(path.read_bytes())
    served = pager(copy, [(w,) for w in range(len(SIZES))], 5)
    os.truncate(copy, 1000)

    def use_all() -> None:
        for weight in (*range(len(SIZES)), *range(len(SIZES))):
            served.release(served.borrow((weight,)), lambda: True)

    with pytest.raises(WeightFileError, match="changed while it was in use"):
        use_all()
    served.close()
    with pytest.raises((MemfitError, WeightFileError)):
        served.borrow((0,))


@pytest.mark.parametrize("moves", [True, False])
def test_frames_move_and_are_never_more(moves: bool) -> None:
    memory = PageFrames(10, 2, CHUNK, moves=moves)
    memory.place(0)
    memory.view(0)[:3] = b"abc"
    memory.place(5)
    with pytest.raises(MemoryError, match="all 2 frames"):
        memory.place(6)
    memory.move(0, 9)
    memory.view(9)[:3] = b"xyz"
    memory.move(5, 0)
    memory.view(0)[:] = bytes(CHUNK)
    assert bytes(memory.view(9)[:3]) == b"xyz"
    assert memory.taken == 2
    assert memory._moves is (moves and sys.platform == "linux")
    memory.drop(9)
    memory.place(1)
    assert bytes(memory.view(1)) == bytes(CHUNK)
    memory.close()
    memory.close()


def test_a_chunk_is_made_of_its_weights() -> None:
    layout = lay_out(["a", "b", "c"], [100, 0, 50_000], [(0, 8), (0, 108), (1, 64)], CHUNK)
    assert layout.begin == (0, 128, 128)
    assert layout.chunks == 4
    assert [layout.chunks_of(weight) for weight in range(3)] == [range(1), range(0), range(4)]
    pieces = [piece for chunk in range(4) for piece in layout.pieces(chunk)]
    assert sum(piece.nbytes for piece in pieces) == 50_100
    assert (pieces[0].file, pieces[0].offset, pieces[0].begin, pieces[0].nbytes) == (0, 8, 0, 100)
    assert (pieces[2].file, pieces[2].offset, pieces[2].begin) == (1, 64 + CHUNK - 128, 0)
    assert isinstance(layout, WeightLayout)


def test_an_order_is_followed_and_a_loop_learned() -> None:
    order = UseOrder(["e", "a", "b", "c"])
    for key in ["e", "a", "b", "c"]:
        assert order.follow(key)[1]
        assert order.loop(key, True) is None
    learned = None
    for key in ["a", "b", "c"] * 4:
        place, expected = order.follow(key)
        assert place == "eabc".index(key)
        learned = learned or order.loop(key, expected)
    assert learned == ["a", "b", "c"]
    order.learn(learned)
    assert [order.follow(key)[1] for key in "abcabc"] == [True] * 6
    assert order.follow("x") == (None, False)
