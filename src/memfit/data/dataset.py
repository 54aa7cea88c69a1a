"""A data set on disk, opened: its columns mapped into memory, nothing read before it is asked for.

    folder/ dataset.json          rows, columns, statistics (``schema``)
            image.bin  image.sum  a fixed column and its checksums (``column_file``)
            text.bin   text.sum   the values of a ragged column, one row after another,
            text.off              and where each row starts: rows + 1 offsets

Opening costs a look at the headers and sizes of the files; the values' checksums are compared by ``verify`` (one read of
all, about 2 GB/s). A data set is read-only and may be shared by threads and forked processes.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfit.data.column_file import BLOCK_BYTES, HEADER_BYTES, numpy_dtype, read_checksums, read_header
from memfit.data.schema import Column, Schema, read_schema
from memfit.errors import DataError

Progress = Callable[[str, int | None, int | None], None]


class MappedFile:
    """One column file mapped read-only. ``bytes``: its values as bytes, without a copy; ``path``."""

    def __init__(self, path: Path, dtype: str, items: int, item_bytes: int) -> None:
        header = read_header(path)
        if (header.dtype, header.items, header.item_bytes) != (dtype, items, item_bytes):
            raise DataError(
                str(path), f"it holds {header.items} items of {header.item_bytes} bytes of type {header.dtype}, and the "
                f"schema says {items} of {item_bytes} of type {dtype}", 16, "the folder mixes files of two data sets",
            )  # fmt: skip
        self.path = str(path)
        self.value_bytes = header.value_bytes
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if self.value_bytes:
            self.map: mmap.mmap | None = mmap.mmap(
                self.descriptor, HEADER_BYTES + self.value_bytes, prot=mmap.PROT_READ
            )
            self.bytes: NDArray[np.uint8] = np.frombuffer(self.map, np.uint8, offset=HEADER_BYTES)
        else:
            self.map, self.bytes = None, np.empty(0, np.uint8)

    def check_size(self) -> None:
        """Refuse a file that was cut short since it was opened: touching its lost pages would end the process.

        Raises:
            DataError: it was.
        """
        size = os.fstat(self.descriptor).st_size
        if size < HEADER_BYTES + self.value_bytes:
            raise DataError(
                self.path, f"it was cut short while in use: {HEADER_BYTES + self.value_bytes} bytes before", size
            )

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class Dataset:
    """A data set in a folder. ``data[i]`` is a row as a dict of arrays, ``data.column(name)`` a whole column, mapped.

    Args:
        folder: what ``memfit data convert`` or ``memfit.data.convert`` made.

    Raises:
        DataError: not a data set, or a file of it is missing, cut short, foreign or not of this schema.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.schema: Schema = read_schema(self.folder)
        self._files: dict[str, MappedFile] = {}
        self._offsets: dict[str, NDArray[np.int64]] = {}
        for column in self.schema.columns:
            self._open(column)

    def _open(self, column: Column) -> None:
        items = len(self)
        if column.ragged:
            offsets = MappedFile(self.folder / f"{column.name}.off", "i8", len(self) + 1, 8)
            values: NDArray[np.int64] = offsets.bytes.view("<i8")
            items = int(values[-1])
            if values[0] != 0 or items < 0:
                raise DataError(offsets.path, f"its rows start at {values[0]} and end at {items}", HEADER_BYTES)
            self._files[f"{column.name}.off"] = offsets
            self._offsets[column.name] = values
        self._files[column.name] = MappedFile(
            self.folder / f"{column.name}.bin", column.dtype, items, column.item_bytes
        )

    def __len__(self) -> int:
        return self.schema.rows

    @property
    def columns(self) -> dict[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.schema.columns}

    def describe(self, name: str) -> Column:
        """The column of that name.

        Raises:
            DataError: there is none.
        """
        try:
            return self.columns[name]
        except KeyError as error:
            known = ", ".join(self.columns)
            raise DataError(str(self.folder), f"it has no column {name!r}", hint=f"its columns: {known}") from error

    def file(self, name: str) -> MappedFile:
        """The mapped file of a column's values."""
        self.describe(name)
        return self._files[name]

    def column(self, name: str) -> NDArray[Any]:
        """A whole column as one read-only array over the mapped file; of a ragged one, all its values in a row."""
        column = self.describe(name)
        values = self._files[name].bytes.view(numpy_dtype(column.dtype))
        return values if column.ragged else values.reshape(len(self), *column.shape)

    def offsets(self, name: str) -> NDArray[np.int64]:
        """Where the rows of a ragged column start, in values; one more than there are rows."""
        return self._offsets[name]

    def row(self, name: str, index: int) -> NDArray[Any]:
        """Row ``index`` of one column, without a copy.

        Raises:
            DataError: the offsets of a ragged column do not fit its values there.
        """
        if not self.describe(name).ragged:
            return np.asarray(self.column(name)[index])
        offsets = self._offsets[name]
        start, end = int(offsets[index]), int(offsets[index + 1])
        if not 0 <= start <= end <= int(offsets[-1]):
            path = self._files[f"{name}.off"].path
            raise DataError(
                path, f"row {index} goes from {start} to {end}", HEADER_BYTES + 8 * index, "convert it again"
            )
        return self.column(name)[start:end]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if isinstance(index, slice):
            return {name: self.column(name)[index] for name, column in self.columns.items() if not column.ragged}
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of a data set of {len(self)} rows")
        index = int(index) % len(self)
        return {name: self._value(column, self.row(name, index)) for name, column in self.columns.items()}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Rows at once, as torch's own DataLoader asks for them."""
        return [self[index] for index in indices]

    @staticmethod
    def _value(column: Column, values: NDArray[Any]) -> Any:
        return values.tobytes().decode("utf-8", "replace") if column.meaning == "text" else np.array(values)

    def verify(self, names: Sequence[str] | None = None, progress: Progress | None = None) -> int:
        """Compare every value with its checksum; returns the bytes read. Cost: one read of the files, about 2 GB/s.

        Raises:
            DataError: a block differs; the error names the file and the block's first byte.
        """
        chosen = [name for name in self._files if names is None or name.removesuffix(".off") in names]
        total, done = sum(self._files[name].value_bytes for name in chosen), 0
        for name in chosen:
            file = self._files[name]
            sums = read_checksums(self.folder / f"{name}.sum", file.value_bytes)
            for block, expected in enumerate(sums):
                start = block * BLOCK_BYTES
                if zlib.crc32(file.bytes[start : start + BLOCK_BYTES].data) != expected:
                    end = min(start + BLOCK_BYTES, file.value_bytes)
                    raise DataError(
                        file.path, f"the bytes up to {HEADER_BYTES + end} do not match their checksum: damaged on disk or "
                        "in a copy", HEADER_BYTES + start, "copy or convert the data again",
                    )  # fmt: skip
                done += min(BLOCK_BYTES, file.value_bytes - start)
                if progress is not None and not block % 64:
                    progress(f"verifying {name}", done, total)
        return done

    def __reduce__(self) -> tuple[type[Dataset], tuple[str]]:
        return Dataset, (str(self.folder.absolute()),)

    def __repr__(self) -> str:
        return f"<memfit data set {self.folder.name!r}: {len(self)} rows of {', '.join(self.columns)}>"
