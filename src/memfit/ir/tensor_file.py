"""A safetensors file, read and written one tensor at a time, so that no more than one is ever held.

Reading goes through ``pread`` into the caller's memory and not through a mapping, whose pages would count as resident. What
the header says is checked first (``memfit.ir.safetensors_header``).
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.errors import OutputError, WeightFileError
from memfit.files import check_writable
from memfit.ir.safetensors_header import BITS, header_of

_ALIGN = 64


class TensorFile:
    """A safetensors file opened for reading. ``entries``: by name; ``metadata``: texts by name.

    Raises:
        WeightFileError: the file is no safetensors file, or one whose header lies.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise WeightFileError(self.path, error.strerror or str(error)) from error
        try:
            header = header_of(self._file.fileno(), self.path)
        except BaseException:
            self._file.close()
            raise
        self.metadata, self.entries = header.metadata, header.tensors

    def read_into(self, name: str, data: npt.NDArray[np.uint8], offset: int = 0) -> None:
        """Bytes of a tensor from ``offset`` on, as many as ``data`` has, into ``data``."""
        entry = self.entries[name]
        view: Any = memoryview(data)  # type: ignore[arg-type]
        at = 0
        while at < data.nbytes:
            count = os.preadv(self._file.fileno(), [view[at:]], entry.begin + offset + at)
            if count <= 0:
                raise WeightFileError(self.path, f"tensor {name!r} ends early")
            at += count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * BITS[dtype] // 8


def header_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The header of a file that holds ``tensors`` (name -> dtype, shape) in this order, length included."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = _nbytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGN)
    return len(text).to_bytes(8, "little") + text


def file_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> int:
    """Projected bytes of the file. Exact."""
    sizes = (_nbytes(dtype, shape) for dtype, shape in tensors.values())
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
                if name != wanted or view.nbytes != _nbytes(dtype, shape):
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
