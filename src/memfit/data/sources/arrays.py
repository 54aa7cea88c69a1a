"""Arrays that NumPy saved: one file is one column, the members of an archive one each. Objects are never unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from memfit.data.column_file import dtype_name
from memfit.data.schema import Column
from memfit.data.sources import BLOCK_BYTES, Block
from memfit.errors import DataError


class ArraySource:
    """A .npy or .npz file."""

    def __init__(self, path: Path) -> None:
        self.path, self.notes = path, list[str]()
        self._arrays = _arrays(path)
        self.columns = [array.column() for array in self._arrays]
        rows = {array.name: array.shape[0] for array in self._arrays}
        if len(set(rows.values())) != 1:
            raise DataError(
                str(path), f"its arrays differ in rows: {rows}", hint="save arrays with the same first dimension"
            )
        self.rows: int | None = self._arrays[0].shape[0]

    def blocks(self, cursor: Any) -> Iterator[Block]:
        """Blocks of rows; the cursor is the number of rows before."""
        start, rows = int(cursor or 0), int(self.rows or 0)
        step = max(1, BLOCK_BYTES // max(1, sum(array.row_bytes for array in self._arrays)))
        streams = [array.open(start) for array in self._arrays]
        try:
            while start < rows:
                stop = min(start + step, rows)
                block = {a.name: a.read(s, start, stop) for a, s in zip(self._arrays, streams, strict=True)}
                start = stop
                yield dict(block), start
        finally:
            for stream in streams:
                stream.close()


class _Array:
    """One array in a file: where its values lie and how they are to be read."""

    def __init__(self, path: Path, name: str, member: str | None) -> None:
        self.path, self.name, self.member = path, name, member
        with self._stream() as file:
            try:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                self.shape, self.fortran, self.dtype = read(file)
            except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
                raise DataError(str(path), f"{self._what} is no array of NumPy: {error}", 0) from error
            self.start = file.tell()
        if not self.shape:
            raise DataError(str(path), f"{self._what} has no rows: it is one number")
        if dtype_name(self.dtype) is None:
            hint = "objects are never unpickled; save numbers" if self.dtype.hasobject else "save it as numbers"
            raise DataError(str(path), f"{self._what} is of type {self.dtype}", hint=hint)
        if any(n < 1 for n in self.shape[1:]):
            raise DataError(str(path), f"{self._what} has the shape {self.shape}: its rows are empty")
        self.row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        needed, size = self.start + self.row_bytes * self.shape[0], self._size()
        if size < needed:
            raise DataError(
                str(path), f"{self._what} is cut short: {needed} bytes are promised, {size} are there", size
            )
        if self.fortran and len(self.shape) > 1 and member is not None:
            raise DataError(
                str(path), f"{self._what} is stored column by column", hint="save np.ascontiguousarray of it"
            )

    @property
    def _what(self) -> str:
        return "it" if self.member is None else f"its member {self.member!r}"

    def _size(self) -> int:
        if self.member is None:
            return self.path.stat().st_size
        with zipfile.ZipFile(self.path) as archive:
            return archive.getinfo(self.member).file_size

    def _stream(self) -> IO[bytes]:
        if self.member is None:
            return open(self.path, "rb")
        return zipfile.ZipFile(self.path).open(self.member)

    def column(self) -> Column:
        shape = self.shape[1:]
        pixels = self.dtype == np.uint8 and len(shape) == 3
        channels = ("last" if shape[-1] in (1, 3, 4) else "first" if shape[0] in (1, 3, 4) else "") if pixels else ""
        return Column(
            self.name, str(dtype_name(self.dtype)), shape, meaning="image" if channels else "", channels=channels
        )

    def open(self, row: int) -> IO[bytes]:
        stream = self._stream()
        stream.seek(self.start + row * self.row_bytes)
        return stream

    def read(self, stream: IO[bytes], start: int, stop: int) -> np.ndarray[Any, Any]:
        if self.fortran and len(self.shape) > 1:
            mapped = np.memmap(self.path, self.dtype, "r", self.start, self.shape, order="F")
            return np.ascontiguousarray(mapped[start:stop]).astype(self.dtype.newbyteorder("<"), copy=False)
        wanted = (stop - start) * self.row_bytes
        try:
            data = stream.read(wanted)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(str(self.path), f"{self._what} is damaged: {error}") from error
        if len(data) < wanted:
            raise DataError(
                str(self.path), f"{self._what} was cut short while it was read", self.start + start * self.row_bytes
            )
        values = np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])
        return values.astype(self.dtype.newbyteorder("<"), copy=False)


def _arrays(path: Path) -> list[_Array]:
    if path.suffix.lower() == ".npy":
        return [_Array(path, path.stem if not path.stem.startswith(".") else "data", None)]
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(str(path), f"it is no archive of NumPy: {error}", 0) from error
    if not members:
        raise DataError(str(path), "it holds no arrays")
    return [_Array(path, member.removesuffix(".npy").replace("/", "_"), member) for member in members]
