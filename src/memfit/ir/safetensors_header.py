"""What a safetensors file says it holds: name -> dtype, shape and place, believed only after every figure was checked.

The format (github.com/huggingface/safetensors, section "Format"): 8 bytes little-endian N, then N bytes of JSON, then the
data. Each entry of the JSON gives ``dtype``, ``shape`` and ``data_offsets`` counted from the start of the data; the data
has neither gaps nor overlaps, and ends where the file ends. A header is input from anywhere: a length is checked against
the file before anything of that length is read, and no figure is used before it was compared with the others.

Offsets here are counted from the start of the *file*, so that a reader passes them to ``pread`` as they are.
Cost: one open, two reads of the header's length, O(tensors log tensors).
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from memfit.errors import WeightFileError

LONGEST_HEADER = 100_000_000
"""Bytes; the limit that the format's own reader sets against a header that eats the memory of its reader."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of one element of each dtype that the format names."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file. ``begin``, ``end``: bytes from the start of the file, half-open; ``shape``: row-major."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data, exactly what dtype and shape need."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells whether a file is still the one whose header was read; ``changed_at``: nanoseconds of its last change."""

    device: int
    inode: int
    nbytes: int
    changed_at: int

    @staticmethod
    def of(descriptor: int) -> FileIdentity:
        """The identity of an open file; one system call."""
        status = os.fstat(descriptor)
        return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class SafetensorsHeader:
    """A checked header. ``tensors``: by name, in file order; ``data_begin``: where the data starts in the file."""

    path: str
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    data_begin: int
    identity: FileIdentity

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def read_header(path: str | Path) -> SafetensorsHeader:
    """The header of the safetensors file at ``path``, with every figure checked against the file.

    Raises:
        WeightFileError: no such file, not the format, cut short, or a header that contradicts itself or the file.
    """
    text = str(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise WeightFileError(text, error.strerror or str(error)) from error
    try:
        return header_of(descriptor, text)
    finally:
        os.close(descriptor)


def header_of(descriptor: int, path: str) -> SafetensorsHeader:
    """The header of an open safetensors file; ``path`` is for messages. Raises as ``read_header``."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        _refuse(path, "it is no regular file")
    identity = FileIdentity.of(descriptor)
    size = identity.nbytes
    prefix = os.pread(descriptor, 8, 0)
    if len(prefix) < 8:
        _refuse(path, f"it has {size} bytes, fewer than the 8 that a safetensors file starts with")
    length = int.from_bytes(prefix, "little")
    if length > LONGEST_HEADER:
        _refuse(path, f"its header claims {length} bytes, more than the format's limit of {LONGEST_HEADER}")
    if 8 + length > size:
        _refuse(
            path, f"its header claims {length} bytes, but the file has {size - 8} after the length: it was cut short"
        )
    text = os.pread(descriptor, length, 8)
    if len(text) != length:
        _refuse(path, f"{length} bytes of header could not be read, only {len(text)}")
    entries, metadata = _parse(text, path)
    tensors = [_tensor(name, entry, 8 + length, size, path) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    _check_no_gaps(tensors, 8 + length, size, path)
    return SafetensorsHeader(path, {tensor.name: tensor for tensor in tensors}, metadata, 8 + length, identity)


def _parse(text: bytes, path: str) -> tuple[dict[str, Any], dict[str, str]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            _refuse(path, f"its header names {_shown(twice)} twice")
        return found

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise WeightFileError(path, f"its header is no JSON ({str(error)[:120]})") from error
    if not isinstance(entries, dict):
        _refuse(path, f"its header is a {type(entries).__name__}, not an object that names tensors")
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(path, "its __metadata__ is not a map of texts")
    return entries, metadata


def _tensor(name: str, entry: Any, data_begin: int, size: int, path: str) -> StoredTensor:
    what = f"tensor {_shown(name)}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        _refuse(path, f"{what} lacks one of dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        _refuse(path, f"{what} has the unknown dtype {_shown(dtype)}; known: {', '.join(BITS)}")
    if not isinstance(shape, list) or not all(_is_count(extent) for extent in shape):
        _refuse(path, f"{what} has the shape {_shown(shape)}, not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(offset) for offset in offsets):
        _refuse(path, f"{what} has the offsets {_shown(offsets)}, not two positions")
    begin, end = offsets
    if begin > end:
        _refuse(path, f"{what} ends at {_shown(end)} before it begins at {_shown(begin)}")
    if data_begin + end > size:
        _refuse(
            path,
            f"{what} should end at byte {_shown(data_begin + end)}, but the file has {size}: it was cut short or its "
            "header lies",
        )
    bits = math.prod(shape) * BITS[dtype]
    if bits % 8 or bits // 8 != end - begin:
        needed = f"{bits // 8} bytes" if bits % 8 == 0 else f"{bits} bits"
        _refuse(path, f"{what} is {dtype} {_shown(shape)}, which needs {needed}, but has {end - begin} bytes")
    return StoredTensor(name, dtype, tuple(shape), data_begin + begin, data_begin + end)


def _check_no_gaps(tensors: list[StoredTensor], data_begin: int, size: int, path: str) -> None:
    """Raise unless ``tensors``, sorted, fill the data from first to last byte."""
    reached, before = data_begin, ""
    for tensor in tensors:
        if tensor.begin < reached:
            _refuse(
                path, f"tensors {_shown(before)} and {_shown(tensor.name)} overlap by {reached - tensor.begin} bytes"
            )
        if tensor.begin > reached:
            gap = tensor.begin - reached
            _refuse(path, f"{gap} bytes before tensor {_shown(tensor.name)} belong to no tensor")
        reached, before = tensor.end, tensor.name
    if reached != size:
        _refuse(path, f"{size - reached} bytes at its end belong to no tensor")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _refuse(path: str, why: str) -> NoReturn:
    raise WeightFileError(path, why)
