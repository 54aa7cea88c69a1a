"""A safetensors file, read and written one tensor at a time, so that no more than one is ever held.

The format: 8 bytes of header length (little endian), a JSON header {name: {dtype, shape, data_offsets}} padded with spaces,
then the tensors end to end. Reading goes through ``pread`` into the caller's memory and not through a mapping, whose pages
would count as resident. A header is checked before anything is allocated: ranges within the file, sizes that fit shapes.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.errors import OutputError, TraceError
from memfit.files import check_writable

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "U16": 2,
    "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8,
}  # fmt: skip
_LARGEST_HEADER = 100_000_000
_ALIGN = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a file: dtype as the format names it, shape, and its bytes ``[begin, end)`` in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.end - self.begin


class TensorFile:
    """A safetensors file opened for reading. ``entries``: by name; ``metadata``: texts by name.

    Raises:
        TraceError: the file is no safetensors file, or one that points outside of itself.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)
            size = os.fstat(self._file.fileno()).st_size
            length = int.from_bytes(self._file.read(8), "little")
        except OSError as error:
            raise TraceError(self.path, error.strerror or str(error)) from error
        try:
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise ValueError("its header is longer than the file")
            header = json.loads(self._file.read(length))
            if not isinstance(header, dict):
                raise ValueError("its header is no table")
            metadata = header.pop("__metadata__", {})
            self.metadata: dict[str, str] = {str(k): str(v) for k, v in metadata.items()}
            self.entries = {name: _entry(name, row, 8 + length, size) for name, row in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._file.close()
            raise TraceError(self.path, f"it is no safetensors file: {error}") from error

    def read_into(self, name: str, data: npt.NDArray[np.uint8], offset: int = 0) -> None:
        """Bytes of a tensor from ``offset`` on, as many as ``data`` has, into ``data``."""
        entry = self.entries[name]
        view: Any = memoryview(data)  # type: ignore[arg-type]
        at = 0
        while at < data.nbytes:
            count = os.preadv(self._file.fileno(), [view[at:]], entry.begin + offset + at)
            if count <= 0:
                raise TraceError(self.path, f"tensor {name!r} ends early")
            at += count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _entry(name: str, row: Any, start: int, size: int) -> Entry:
    dtype, shape = row["dtype"], tuple(row["shape"])
    begin, end = row["data_offsets"]
    if dtype not in ITEM_BYTES:
        raise ValueError(f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not all(type(length) is int and length >= 0 for length in (*shape, begin, end)):
        raise ValueError(f"tensor {name!r} has a shape or range that is no size")
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype] or start + end > size or begin > end:
        raise ValueError(f"tensor {name!r} of shape {list(shape)} does not fit its bytes {begin} to {end}")
    return Entry(dtype, shape, start + begin, start + end)


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The header of a file that holds ``tensors`` (name -> dtype, shape) in this order, length included."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGN)
    return len(text).to_bytes(8, "little") + text


def file_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> int:
    """Projected bytes of the file. Exact."""
    sizes = (math.prod(shape) * ITEM_BYTES[dtype] for dtype, shape in tensors.values())
    return len(header_bytes(tensors, metadata)) + sum(sizes)


def write_tensors(
    path: str | Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], parts: Iterator[tuple[str, Any]],
    metadata: Mapping[str, str],
) -> int:  # fmt: skip
    """Write a file whole or not at all, each tensor as ``parts`` yields it; returns its bytes.

    Args:
        tensors: name -> (dtype, shape), in the order of the file.
        parts: (name, C-contiguous bytes-like) in the same order; each may be dropped once yielded.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    check_writable(path)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    except OSError as error:
        raise OutputError(str(path), error.strerror or str(error)) from error
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            _write_all(file.fileno(), header_bytes(tensors, metadata))
            expected = iter(tensors.items())
            for name, data in parts:
                wanted, (dtype, shape) = next(expected)
                view = memoryview(data).cast("B")
                if name != wanted or view.nbytes != math.prod(shape) * ITEM_BYTES[dtype]:
                    raise ValueError(
                        f"tensor {name!r} of {view.nbytes} bytes where {wanted!r} {shape} {dtype} was announced"
                    )
                _write_all(file.fileno(), view)
                del data, view
            size = file.tell()
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            raise OutputError(str(path), error.strerror or str(error)) from error
        raise
    return size


def _write_all(descriptor: int, data: Any) -> None:
    view = memoryview(data)
    at = 0
    while at < len(view):
        at += os.write(descriptor, view[at : at + (1 << 28)])
