"""Append to the files of one column: values, checksums as they pass, offsets where rows have their own length.

What is written can be cut back to an earlier state (``state``, ``cut_back``), which is how an interrupted convert goes
on: everything past the last checkpoint is thrown away and written again.
"""

from __future__ import annotations

import math
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from memfit.data.column_file import BLOCK_BYTES, HEADER_BYTES, ColumnHeader, numpy_dtype
from memfit.data.schema import Column


class Ragged:
    """Rows of their own lengths: ``values`` one after another, ``lengths`` in values."""

    def __init__(self, values: NDArray[Any], lengths: NDArray[np.int64]) -> None:
        self.values, self.lengths = values, lengths

    def __len__(self) -> int:
        return len(self.lengths)


Values = NDArray[Any] | Ragged


class FileWriter:
    """One column file that grows. The header is written last: until then the file is none."""

    def __init__(self, path: Path, dtype: str, item_bytes: int) -> None:
        self.path, self.dtype, self.item_bytes = path, dtype, item_bytes
        self.written = 0
        self.sums: list[int] = []
        self.open_sum = 0
        self._file: BinaryIO = open(path, "r+b" if path.exists() else "x+b", buffering=0)  # noqa: SIM115 - closed by finish
        self._file.seek(HEADER_BYTES)

    def append(self, data: memoryview) -> None:
        """Write bytes at the end and fold them into the checksum of their block."""
        rest = data
        while len(rest):
            rest = rest[self._file.write(rest) :]
        start = 0
        while start < len(data):
            room = BLOCK_BYTES - self.written % BLOCK_BYTES
            part = data[start : start + room]
            self.open_sum = zlib.crc32(part, self.open_sum)
            self.written += len(part)
            start += len(part)
            if self.written % BLOCK_BYTES == 0:
                self.sums.append(self.open_sum)
                self.open_sum = 0

    def sync(self) -> None:
        """Until the disk has it."""
        os.fdatasync(self._file.fileno())

    def state(self) -> dict[str, int]:
        """What ``cut_back`` needs; the checksums of whole blocks are kept beside, in ``sums``."""
        return {"written": self.written, "open_sum": self.open_sum}

    def cut_back(self, state: dict[str, int], sums: list[int]) -> None:
        """Forget what was written after ``state``.

        Raises:
            ValueError: the file is shorter than that.
        """
        if os.fstat(self._file.fileno()).st_size < HEADER_BYTES + state["written"]:
            raise ValueError(f"{self.path.name} is shorter than its checkpoint")
        self.written, self.open_sum = state["written"], state["open_sum"]
        self.sums = sums[: self.written // BLOCK_BYTES]
        self._file.truncate(HEADER_BYTES + self.written)
        self._file.seek(HEADER_BYTES + self.written)

    def finish(self) -> None:
        """Write the header and the file of checksums, until the disk has both."""
        if not self.written:
            self._file.truncate(HEADER_BYTES)
        self._file.seek(0)
        self._file.write(ColumnHeader(self.dtype, self.written // self.item_bytes, self.item_bytes).to_bytes())
        os.fsync(self._file.fileno())
        self._file.close()
        sums = np.array([*self.sums, *([self.open_sum] if self.written % BLOCK_BYTES else [])], "<u4")
        with open(self.path.with_suffix(".sum") if self.path.suffix == ".bin" else f"{self.path}.sum", "wb") as file:
            file.write(ColumnHeader("u4", len(sums), 4).to_bytes() + sums.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Leave the file as it is."""
        self._file.close()


class ColumnWriter:
    """The files of one column."""

    def __init__(self, folder: Path, column: Column) -> None:
        self.column, self.rows, self.values = column, 0, 0
        self.files = [FileWriter(folder / f"{column.name}.bin", column.dtype, column.item_bytes)]
        if column.ragged:
            self.files.append(FileWriter(folder / f"{column.name}.off", "i8", 8))

    def append(self, values: Values) -> None:
        """Append rows; arrays of another byte order or memory order are brought into the file's.

        Raises:
            ValueError: the rows do not have the column's shape or type.
        """
        if isinstance(values, Ragged) != self.column.ragged:
            raise ValueError(f"column {self.column.name!r} is {'ragged' if self.column.ragged else 'of one shape'}")
        array = values.values if isinstance(values, Ragged) else values
        if not isinstance(values, Ragged) and array.shape[1:] != self.column.shape:
            raise ValueError(
                f"column {self.column.name!r} has rows of shape {self.column.shape}, and one of {array.shape[1:]} came"
            )
        wanted = numpy_dtype(self.column.dtype)
        if array.dtype.newbyteorder("<") != wanted:
            raise ValueError(f"column {self.column.name!r} is of type {wanted}, and {array.dtype} came")
        array = np.ascontiguousarray(array, wanted)
        if isinstance(values, Ragged):
            ends = np.concatenate([[0] if not self.rows else [], self.values + np.cumsum(values.lengths)])
            self.files[1].append(_bytes(np.asarray(ends, "<i8")))
            self.values += math.prod(array.shape)
        self.rows += len(values)
        if array.size:
            self.files[0].append(_bytes(array))

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows, "values": self.values, "files": [file.state() for file in self.files]}

    def cut_back(self, state: dict[str, Any], sums: list[list[int]]) -> None:
        """Go on from a checkpoint."""
        self.rows, self.values = state["rows"], state["values"]
        for file, saved, blocks in zip(self.files, state["files"], sums, strict=True):
            file.cut_back(saved, blocks)

    def finish(self) -> None:
        """Close the column for good."""
        if self.column.ragged and not self.rows:
            self.files[1].append(_bytes(np.zeros(1, "<i8")))
        for file in self.files:
            file.finish()

    def close(self) -> None:
        """Leave the files as they are."""
        for file in self.files:
            file.close()


def _bytes(array: NDArray[Any]) -> memoryview:
    """The array's bytes, without a copy where they lie together."""
    flat: NDArray[np.uint8] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat.data
