"""Files of weights: what a path stands for, reading through and past the page cache, and changes while in use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from memfit.errors import WeightFileError
from memfit.runtime.weight_file import INDEX, WeightFiles, weight_files

save = pytest.importorskip("safetensors.numpy").save_file
RNG = np.random.default_rng(0)
ONE = {"a": RNG.random(50_001).astype("f4"), "b": RNG.random((7, 11)).astype("f8")}
TWO = {"c": RNG.random(9_000).astype("f4")}


def folder(path: Path) -> Path:
    save(ONE, str(path / "model-1.safetensors"))
    save(TWO, str(path / "model-2.safetensors"))
    places = {**dict.fromkeys(ONE, "model-1.safetensors"), **dict.fromkeys(TWO, "model-2.safetensors")}
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


def read(files: WeightFiles, name: str) -> bytes:
    file, tensor = files.tensors[name]
    target = bytearray(tensor.nbytes)
    files.read_into(memoryview(target), file, tensor.begin)
    return bytes(target)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_bytes_are_those_of_the_file(keep: bool, cached: bool, tmp_path: Path) -> None:
    path = folder(tmp_path)
    for file in path.glob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        if not cached:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    files = WeightFiles(path, keep=keep)
    for name, array in {**ONE, **TWO}.items():
        assert read(files, name) == array.tobytes()
    file, tensor = files.tensors["a"]
    for begin, nbytes in ((3, 1), (4090, 9), (1, 199_999), (0, 0)):
        target = bytearray(nbytes)
        files.read_into(memoryview(target), file, tensor.begin + begin)
        assert bytes(target) == ONE["a"].tobytes()[begin : begin + nbytes]
    files.close()


def test_without_reads_past_the_cache_plain_ones_serve(tmp_path: Path) -> None:
    files = WeightFiles(folder(tmp_path))
    for number, descriptor in enumerate(files._direct):
        if descriptor >= 0:
            os.close(descriptor)
        files._direct[number] = -1
    assert read(files, "a") == ONE["a"].tobytes()
    assert files.buffer_bytes(1 << 21) == 0


def test_what_a_path_stands_for(tmp_path: Path) -> None:
    path = folder(tmp_path)
    names = ["model-1.safetensors", "model-2.safetensors"]
    assert [file.name for file in weight_files(path)] == names
    assert [file.name for file in weight_files(path / INDEX)] == names
    assert weight_files(path / names[0]) == [path / names[0]]
    (path / INDEX).unlink()
    assert [file.name for file in weight_files(path)] == names


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{", "no JSON"),
        ("[]", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": {"a": "../model-1.safetensors"}}', "no .safetensors file beside it"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "no .safetensors file beside it"),
        ('{"weight_map": {"a": 3}}', "no .safetensors file beside it"),
        ('{"weight_map": {"a": "model-3.safetensors"}}', "No such file"),
        ('{"weight_map": {"a": "model-2.safetensors"}}', "puts 'a' into model-2.safetensors, which does not hold it"),
    ],
)
def test_an_index_that_lies(index: str, words: str, tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / INDEX).write_text(index)
    with pytest.raises(WeightFileError, match=words):
        WeightFiles(path)


def test_a_tensor_in_two_files_and_a_folder_without_any(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightFileError, match=r"holds no \.safetensors file"):
        WeightFiles(tmp_path / "empty")
    save(ONE, str(tmp_path / "x.safetensors"))
    save(ONE, str(tmp_path / "y.safetensors"))
    with pytest.raises(WeightFileError, match=r"stands in .*x\.safetensors too"):
        WeightFiles(tmp_path)


@pytest.mark.parametrize("change", ["written", "cut", "grown", "replaced", "gone"])
def test_a_change_while_in_use(change: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save(ONE, str(path))
    files = WeightFiles(path)
    read(files, "a")
    if change == "written":
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
        os.utime(path, ns=(0, 12345))
    elif change in ("cut", "grown"):
        os.truncate(path, path.stat().st_size + (-100_000 if change == "cut" else 1))
    elif change == "replaced":
        save(ONE, str(tmp_path / "y"))
        os.replace(tmp_path / "y", path)
    else:
        path.unlink()
    words = {"written": "was written to", "cut": "size went from", "grown": "size went from"}
    with pytest.raises(WeightFileError, match=words.get(change, "another file stands in its place")):
        read(files, "a")
