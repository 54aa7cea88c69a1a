"""A loader: the right rows in the right order however it reads, exact over a resume, within its memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memfit.data import Dataset, Loader, cast, channels, convert, normalize, one_hot, scale
from memfit.data.page_cache import forget, resident_bytes
from memfit.errors import BudgetError, DataError

ROWS = 1000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS, 8, 8, 3), dtype=np.uint8)
    features = rng.standard_normal((ROWS, 16)).astype(np.float32) * 3 + 10
    np.savez(folder / "a.npz", image=images, x=features, label=np.arange(ROWS))
    return convert(folder / "a.npz", folder / "set")


WAYS = [
    ("mapped", False),
    ("sequential", False),
    ("direct", False),
    ("mapped", True),
    ("direct", True),
    ("direct", 3),
    ("mapped", 7),
]


@pytest.mark.parametrize(("way", "shuffle"), WAYS)
@pytest.mark.parametrize("threads", [0, 2])
def test_every_access_brings_every_row_once_with_its_values(
    data: Dataset, way: str, shuffle: Any, threads: int
) -> None:
    steps = {"image": [normalize(), channels("first")], "x": [normalize()]}
    with Loader(data, 64, steps, shuffle=shuffle, access=way, threads=threads, memory_budget="256MiB") as loader:
        for epoch in range(2):
            labels = []
            for batch in loader:
                rows = batch["label"]
                wide = data.column("image")[rows].astype(np.float64).transpose(0, 3, 1, 2)
                figures = data.schema.statistics["image"]
                mean, std = (np.array(figures[k]).reshape(1, 3, 1, 1) for k in ("mean", "std"))
                np.testing.assert_allclose(batch["image"], (wide - mean) / std, atol=1e-5)
                assert batch["image"].dtype == np.float32
                labels.extend(rows.tolist())
            assert sorted(labels) == list(range(ROWS))
            assert (labels == list(range(ROWS))) == (not shuffle)
            assert loader.state_dict()["epoch"] == epoch + 1


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Many pools of rows that say which they are."""
    folder = tmp_path_factory.mktemp("sets")
    number = np.arange(9000, dtype=np.int64)
    np.savez(folder / "a.npz", x=number[:, None].repeat(16, 1), y=-number[:, None].repeat(3, 1))
    return convert(folder / "a.npz", folder / "set")


@pytest.mark.parametrize(("batch", "threads", "ahead"), [(3000, 0, 2), (3000, 2, 2), (100, 4, 40), (7, 4, 600)])
def test_a_pool_stays_while_any_batch_is_made_of_it(numbered: Dataset, batch: int, threads: int, ahead: int) -> None:
    with Loader(numbered, batch, shuffle=1, access="direct", threads=threads, ahead=ahead) as loader:
        assert loader.access.open * loader.access.chunk < len(numbered) // 4
        for _ in range(2):
            seen = []
            for made in loader:
                assert (made["x"] == made["x"][:, :1]).all()
                assert (made["y"] == -made["x"][:, :3]).all()
                seen.append(made["x"][:, 0].copy())
            assert sorted(np.concatenate(seen)) == list(range(len(numbered)))


def test_a_state_is_small_and_exact_over_other_ranks_and_batches(data: Dataset) -> None:
    whole = [int(x) for batch in Loader(data, 50, shuffle=True, seed=5, columns=["label"]) for x in batch["label"]]
    seen: list[int] = []
    ranks = [Loader(data, 17, shuffle=True, seed=5, columns=["label"], rank=r, ranks=2) for r in range(2)]
    running = [iter(loader) for loader in ranks]
    for _ in range(9):
        for one in running:
            seen.extend(next(one)["label"].tolist())
    states = [loader.state_dict() for loader in ranks]
    assert states[0] == states[1]
    assert len(json.dumps(states[0])) < 100
    assert seen == whole[: len(seen)]
    after = [Loader(data, 11, shuffle=True, columns=["label"], rank=r, ranks=3) for r in range(3)]
    for loader in after:
        loader.load_state_dict(states[0])
    later = [[batch["label"].tolist() for batch in loader] for loader in after]
    for step in range(max(map(len, later))):
        for one in later:
            seen.extend(one[step] if step < len(one) else [])
    assert seen == whole


def test_a_kept_batch_is_not_overwritten(data: Dataset) -> None:
    with Loader(data, 100, {"x": [scale(2.0)]}, columns=["x", "label"]) as loader:
        kept = list(loader)
        for batch in kept:
            np.testing.assert_array_equal(batch["x"], data.column("x")[batch["label"]] * 2)
        del kept, batch
        places = {batch["x"].ctypes.data for batch in loader}
    assert len(places) <= 10


def test_dropped_batches_share_a_few_buffers(data: Dataset) -> None:
    with Loader(data, 10, columns=["x"]) as loader:
        assert len({batch["x"].ctypes.data for batch in loader}) <= 5
        slot = loader._ring.slot_bytes
        assert loader.memory["ring"] >= 4 * slot


def test_steps_are_one_affine_map(data: Dataset) -> None:
    steps = {"image": [scale(1 / 255), normalize((0.5, 0.4, 0.3), 0.25), channels("first"), cast("bfloat16")]}
    batch = next(iter(Loader(data, 4, steps, threads=0)))
    wanted = (data.column("image")[:4] / 255 - [0.5, 0.4, 0.3]) / 0.25
    found = (batch["image"].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(found, wanted.transpose(0, 3, 1, 2), rtol=2**-8, atol=1e-3)
    hot = next(iter(Loader(data, 4, {"label": [one_hot(ROWS)], "x": [lambda x: x.sum(1)]}, threads=0)))
    assert hot["label"].argmax(1).tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(hot["x"], data.column("x")[:4].sum(1))


def test_tensors_share_the_buffer(data: Dataset) -> None:
    torch = pytest.importorskip("torch")
    steps = {"image": [normalize(), cast("bfloat16")], "x": [normalize()]}
    with Loader(data, 32, steps, output="torch", tuples=True, columns=["image", "x", "label"]) as loader:
        for image, x, label in loader:
            assert image.dtype == torch.bfloat16
            assert x.dtype == torch.float32
            assert label.dtype == torch.int64
            assert x.shape[1:] == (16,)
    kept = [x for _, x, _ in loader]
    assert len({x.data_ptr() for x in kept}) == len(kept)


def test_torchs_own_loader_takes_the_data_set(data: Dataset) -> None:
    torch = pytest.importorskip("torch")
    for batch in torch.utils.data.DataLoader(data, 10):
        assert batch["image"].shape == (10, 8, 8, 3)
        break


def test_what_cannot_be_is_said(data: Dataset, tmp_path: Path) -> None:
    for arguments, says in [
        ({"batch": 0}, "no whole number"), ({"columns": ["none"]}, "no column 'none'"), ({"last": "x"}, "keep, drop or pad"),
        ({"output": "nothing"}, "no output 'nothing'"), ({"rank": 3, "ranks": 2}, "no rank 3"),
        ({"transform": {"label": [one_hot(5)]}}, "labels from"), ({"transform": {"x": [channels("first")]}}, "image column"),
        ({"transform": {"x": [normalize(0, 0)]}}, "cannot be divided"), ({"transform": {"x": [cast("float99")]}}, "no type"),
        ({"transform": {"x": [scale((1, 2))]}}, "2 numbers for 16"), ({"access": "x"}, "no access"),
        ({"access": "sequential", "shuffle": True}, "cannot shuffle"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=says):
            list(Loader(data, **{"batch": 8, **arguments}))
    with pytest.raises(BudgetError):
        Loader(data, 64, memory_budget="1KiB", access="direct", shuffle=True)
    loader = Loader(data, 8)
    for state in ({}, {"seed": 0, "epoch": 0, "row": 0, "order": 1}, {**loader.state_dict(), "row": 10**9}):
        with pytest.raises(DataError):
            loader.load_state_dict(state)


def test_a_file_cut_short_while_it_is_read_is_an_error_and_no_crash(data: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1000, 1024), np.float32))
    for way in ("mapped", "direct", "sequential"):
        made = convert(tmp_path / "x.npy", tmp_path / "cut", overwrite=True)
        with Loader(made, 10, access=way, shuffle=way == "mapped", threads=0) as loader:
            running = iter(loader)
            next(running)
            os.truncate(made.folder / "x.bin", 100_000)
            with pytest.raises(DataError, match="cut short"):
                list(running)


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("way", ["mapped", "sequential", "direct"])
def test_no_more_buffers_are_made_than_stated(data: Dataset, way: str, threads: int) -> None:
    with Loader(data, 64, columns=["image"], access=way, threads=threads) as loader:
        for _ in range(2):
            for batch in loader:
                assert len(batch["image"])
        made = sum(slot.memory.nbytes for slot in loader._ring._slots)
        assert 0 < made <= loader.memory["ring"]


def test_a_reader_in_order_copies_or_scales_rows_longer_than_its_memory(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 512, 1024, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", values)
    made = convert(tmp_path / "x.npy", tmp_path / "d")
    for steps, wanted in (([], values), ([scale(2.0)], values * np.float32(2))):
        with Loader(made, 2, steps, access="sequential") as loader:
            assert (np.concatenate([batch["x"] for batch in loader]) == wanted).all()
            assert loader.memory["staging"] >= 3 << 19


def test_a_reader_in_order_leaves_little_in_the_page_cache(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((96, 1 << 10, 1 << 8, 4), np.uint8))
    made = convert(tmp_path / "x.npy", tmp_path / "d")
    file = made.file("x")
    os.fsync(file.descriptor)
    forget(file)
    if resident_bytes(file) > file.value_bytes // 2:
        pytest.skip("this file system keeps its pages in memory")
    with Loader(made, 4, access="sequential", threads=0) as loader:
        most = max(resident_bytes(file) for _ in loader)
        assert most <= loader.memory["cache"]
    assert resident_bytes(file) <= 8 << 20


def test_text_comes_as_text(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "t.csv").write_text("n,text\n" + "".join(f"{i},row {i}\n" for i in range(30)))
    for batch in Loader(convert(tmp_path / "t.csv", tmp_path / "set"), 7, shuffle=True):
        assert batch["text"] == [f"row {n}" for n in batch["n"]]
