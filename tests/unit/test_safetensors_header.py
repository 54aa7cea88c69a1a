"""The header of a safetensors file: what is right is read, what lies is refused with what, how much and where."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.errors import WeightFileError
from memfit.ir.safetensors_header import BITS, LONGEST_HEADER, read_header

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}


def write(path: Path, header: Any, data: int = 32, *, length: int | None = None, text: bytes | None = None) -> Path:
    text = json.dumps(header).encode() if text is None else text
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data))
    return path


def test_a_good_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"__metadata__": {"format": "pt"}, "b": B, "a": A})
    header = read_header(path)
    assert list(header.tensors) == ["a", "b"]
    first = header.tensors["a"]
    assert (first.dtype, first.shape, first.nbytes) == ("F32", (2, 3), 24)
    assert first.begin == header.data_begin
    assert header.tensors["b"].end == path.stat().st_size == header.identity.nbytes
    assert header.nbytes == 32
    assert header.metadata == {"format": "pt"}


def test_padding_scalars_and_empty_tensors(tmp_path: Path) -> None:
    text = json.dumps({"s": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]},
                       "e": {"dtype": "F32", "shape": [0, 3], "data_offsets": [8, 8]}}).encode() + b"   "  # fmt: skip
    header = read_header(write(tmp_path / "a", None, 8, text=text))
    assert header.tensors["s"].nbytes == 8
    assert header.tensors["e"].nbytes == 0


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a": A}, "8 bytes at its end belong to no tensor"),
        ({"a": A, "b": {**B, "data_offsets": [24, 40]}}, "should end at byte"),
        ({"a": A, "b": {**B, "data_offsets": [20, 28]}}, "tensors 'a' and 'b' overlap by 4 bytes"),
        ({"b": B}, "24 bytes before tensor 'b' belong to no tensor"),
        ({"a": A, "b": {**B, "dtype": "F16X"}}, "unknown dtype 'F16X'; known: BOOL"),
        ({"a": A, "b": {**B, "dtype": "F32"}}, r"F32 \[4\], which needs 16 bytes, but has 8 bytes"),
        ({"a": A, "b": {**B, "dtype": "F4", "shape": [15]}}, "which needs 60 bits"),
        ({"a": A, "b": {**B, "shape": [-4]}}, r"the shape \[-4\], not a list of sizes"),
        ({"a": A, "b": {**B, "shape": [True, 4]}}, "not a list of sizes"),
        ({"a": A, "b": {**B, "shape": [10**30]}}, "not a list of sizes"),
        ({"a": A, "b": {**B, "shape": "4"}}, "not a list of sizes"),
        ({"a": A, "b": {**B, "data_offsets": [32, 24]}}, "ends at 24 before it begins at 32"),
        ({"a": A, "b": {**B, "data_offsets": [24]}}, "not two positions"),
        ({"a": A, "b": {**B, "data_offsets": [24.0, 32.0]}}, "not two positions"),
        ({"a": A, "b": {**B, "data_offsets": [-8, 0]}}, "not two positions"),
        ({"a": A, "b": {"dtype": "BF16", "shape": [4]}}, "lacks one of"),
        ({"a": A, "b": 7}, "lacks one of"),
        ([1, 2], "its header is a list"),
        ({"a": A, "b": B, "__metadata__": {"x": 1}}, "__metadata__ is not a map of texts"),
    ],
)
def test_headers_that_lie(header: Any, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "lies.safetensors", header)
    with pytest.raises(WeightFileError, match=words) as refused:
        read_header(path)
    assert refused.value.path == str(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.write_bytes(b"abc"), "it has 3 bytes, fewer than the 8"),
        (lambda p: p.write_bytes(b""), "it has 0 bytes"),
        (lambda p: write(p, {"a": A}, length=2**63), f"more than the format's limit of {LONGEST_HEADER}"),
        (lambda p: write(p, {"a": A}, length=10**6), "claims 1000000 bytes, but the file has"),
        (lambda p: write(p, None, text=b"{not json"), "its header is no JSON"),
        (lambda p: write(p, None, text=b"\xff\xfe{}"), "its header is no JSON"),
        (lambda p: write(p, None, text=b"[" * 100_000), "its header is no JSON"),
        (lambda p: write(p, None, text=b'{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4], "shape": []}}'),
         "names 'shape' twice"),
        (lambda p: p.mkdir(), "no regular file"),
        (lambda p: os.mkfifo(p), "no regular file"),
        (lambda p: None, "No such file"),
    ],
)  # fmt: skip
def test_files_that_are_none(make: Callable[[Path], Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    make(path)
    with pytest.raises(WeightFileError, match=words):
        read_header(path)


def test_a_file_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"a": A, "b": B})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightFileError):
            read_header(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_changed_byte_never_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = write(tmp_path_factory.mktemp("bytes") / "x", {"a": A, "b": B})
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 33))
    content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        header = read_header(path)
    except WeightFileError:
        return
    assert sum(tensor.nbytes for tensor in header.tensors.values()) == 32


def test_the_format_s_own_writer_is_read_the_same(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    import numpy as np

    rng = np.random.default_rng(0)
    arrays = {f"t{i}": rng.random((i, 3)).astype(kind) for i, kind in enumerate(["f4", "f8", "i4", "u1", "?", "f2"])}
    path = tmp_path / "x.safetensors"
    numpy.save_file(arrays, str(path), metadata={"a": "b"})
    header = read_header(path)
    content = path.read_bytes()
    assert set(header.tensors) == set(arrays)
    for name, array in arrays.items():
        tensor = header.tensors[name]
        assert content[tensor.begin : tensor.end] == array.tobytes()
        assert tensor.shape == array.shape
        assert BITS[tensor.dtype] == 8 * array.itemsize
