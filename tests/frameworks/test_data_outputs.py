"""Batches as a framework's arrays: over the loader's own buffers, with the types that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memfit.data import Dataset, Loader, cast, convert, scale


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    np.savez(
        folder / "a.npz",
        x=rng.standard_normal((200, 8)).astype(np.float32),
        brain=rng.standard_normal((200, 8)).astype(np.float32),
        token=rng.integers(0, 65536, (200, 4), dtype=np.uint16),
        label=np.arange(200),
    )
    return convert(folder / "a.npz", folder / "set")


def batches(data: Dataset, output: str, threads: int) -> Loader:
    steps = {"x": [scale(2.0)], "brain": [cast("bfloat16")]}
    return Loader(data, 64, steps, shuffle=True, threads=threads, output=output)


def check(data: Dataset, output: str, numbers: Any, wide: Any, place: Any, brain: Any, threads: int) -> None:
    """``numbers``: to NumPy; ``wide``: to float32; ``place``: the address; ``brain``: the type bfloat16."""
    with batches(data, output, threads) as loader:
        for _ in range(3):
            seen = []
            for batch in loader:
                rows = numbers(batch["label"])
                np.testing.assert_array_equal(numbers(batch["x"]), data.column("x")[rows] * 2)
                np.testing.assert_array_equal(numbers(batch["token"]), data.column("token")[rows])
                assert batch["brain"].dtype == brain
                np.testing.assert_allclose(numbers(wide(batch["brain"])), data.column("brain")[rows], rtol=2**-8)
                slots = [(s.memory.ctypes.data, s.memory.nbytes) for s in loader._ring._slots]
                for name in ("x", "brain", "token"):
                    assert any(at <= place(batch[name]) < at + size for at, size in slots), f"{name} was copied"
                seen.extend(rows.tolist())
            assert sorted(seen) == list(range(200))
            kept = numbers(batch["x"]).copy()
            del batch
        held = next(iter(loader))
        copy = numbers(held["x"]).copy()
        for _ in loader:
            pass
        np.testing.assert_array_equal(numbers(held["x"]), copy)
        assert kept.shape == (8, 8)


@pytest.mark.parametrize("threads", [0, 2])
def test_torch_tensors_share_the_buffers(data: Dataset, threads: int) -> None:
    torch = pytest.importorskip("torch")
    check(data, "torch", lambda t: t.numpy(), lambda t: t.float(), lambda t: t.data_ptr(), torch.bfloat16, threads)


@pytest.mark.parametrize("threads", [0, 2])
def test_jax_arrays_share_the_buffers(data: Dataset, threads: int) -> None:
    jax = pytest.importorskip("jax")
    check(
        data, "jax", np.asarray, lambda a: a.astype("float32"), lambda a: a.unsafe_buffer_pointer(), jax.numpy.bfloat16,
        threads,
    )  # fmt: skip


@pytest.mark.parametrize("threads", [0, 2])
def test_tensorflow_tensors_share_the_buffers(data: Dataset, threads: int, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    def place(tensor: Any) -> int:
        bits = tf.bitcast(tensor, tf.uint16) if tensor.dtype == tf.bfloat16 else tensor
        return int(np.from_dlpack(bits).ctypes.data)

    check(data, "tensorflow", lambda t: t.numpy(), lambda t: tf.cast(t, tf.float32), place, tf.bfloat16, threads)


def test_tensorflow_copies_what_lies_askew(data: Dataset) -> None:
    tf = pytest.importorskip("tensorflow")

    def one_on(rows: Any) -> Any:
        return rows[1:]

    with Loader(data, 64, {"x": [one_on]}, columns=["x"], output="tensorflow") as loader:
        rows = [tf.bitcast(batch["x"][:, 0], tf.int32).shape[0] for batch in loader]
    assert rows == [63, 63, 63, 7]
