"""One file of one column: a page of header that says what follows, then the values, little-endian.

    byte 0      8        12       16      24         32            40       56          60            4096
    | MEMFITCO | order  | version | items | item bytes | value bytes | type   | checksum  | zeros .... | values ...

The header fills one page, so that values start where direct reads may start. ``order`` is 0x01020304 as the writer's
machine wrote it: read as 0x04030201 it is a file of the other byte order, which is refused rather than misread. The
checksum is the CRC-32 of the header without it. The values' own checksums, a CRC-32 for each MiB, lie in a column file
beside it (``NAME.sum``).
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memfit.errors import DataError

HEADER_BYTES = 4096
BLOCK_BYTES = 1 << 20
"""Values that one checksum covers."""

DTYPES = ("bool", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8")
_MAGIC = b"MEMFITCO"
_ORDER, _VERSION = 0x01020304, 1
_FIELDS = struct.Struct("<8sIIQQQ16s")


@dataclass(frozen=True)
class ColumnHeader:
    """What a column file holds: ``items`` of ``item_bytes`` each, of the element type ``dtype``."""

    dtype: str
    items: int
    item_bytes: int

    @property
    def value_bytes(self) -> int:
        """Bytes of all values, the header left aside."""
        return self.items * self.item_bytes

    def to_bytes(self) -> bytes:
        """The page that stands before the values."""
        fields = _FIELDS.pack(
            _MAGIC, _ORDER, _VERSION, self.items, self.item_bytes, self.value_bytes, self.dtype.encode()
        )
        page = fields + struct.pack("<I", zlib.crc32(fields))
        return page.ljust(HEADER_BYTES, b"\0")


def numpy_dtype(name: str) -> np.dtype[np.generic]:
    """The NumPy type of a column's element type, in the file's byte order."""
    return np.dtype("?") if name == "bool" else np.dtype("<" + name)


def dtype_name(dtype: np.dtype[np.generic]) -> str | None:
    """The element type's name in a column file, or None where a column cannot hold such values."""
    name = "bool" if dtype.kind == "b" else f"{dtype.kind}{dtype.itemsize}"
    return name if name in DTYPES else None


def read_header(path: str | Path) -> ColumnHeader:
    """The header of a column file, checked against the file.

    Raises:
        DataError: no such file, not a column file, of the other byte order, damaged, or shorter than it says.
    """
    path = str(path)
    try:
        with open(path, "rb") as file:
            page = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    if len(page) < HEADER_BYTES:
        raise DataError(path, f"its header of {HEADER_BYTES} bytes is cut short", len(page), _AGAIN)
    magic, order, version, items, item_bytes, value_bytes, dtype = _FIELDS.unpack_from(page)
    if magic != _MAGIC:
        raise DataError(path, "it is no column file of memfit (its first bytes differ)", 0, _AGAIN)
    if order == int.from_bytes(_ORDER.to_bytes(4, "little"), "big"):
        raise DataError(path, "its numbers are of the other byte order (big-endian)", 8, "convert it on this machine")
    if order != _ORDER:
        raise DataError(path, f"its byte order mark is {order:#010x}, not {_ORDER:#010x}", 8, _AGAIN)
    if version != _VERSION:
        raise DataError(path, f"it is of version {version}; this memfit reads {_VERSION}", 12)
    if struct.unpack_from("<I", page, _FIELDS.size)[0] != zlib.crc32(page[: _FIELDS.size]):
        raise DataError(path, "its header does not match its checksum", _FIELDS.size, _AGAIN)
    name = dtype.rstrip(b"\0").decode("ascii", "replace")
    if name not in DTYPES or items * item_bytes != value_bytes:
        raise DataError(path, f"its header says {items} items of {item_bytes} bytes of type {name!r}", 16, _AGAIN)
    if size < HEADER_BYTES + value_bytes:
        raise DataError(
            path, f"it is cut short: {HEADER_BYTES + value_bytes} bytes are promised and {size} are there", size, _AGAIN
        )
    if size > HEADER_BYTES + value_bytes:
        raise DataError(
            path, f"{size - HEADER_BYTES - value_bytes} bytes follow its end", HEADER_BYTES + value_bytes, _AGAIN
        )
    return ColumnHeader(name, items, item_bytes)


def read_checksums(path: Path, value_bytes: int) -> NDArray[np.uint32]:
    """The checksums of a column's blocks, from the file ``path`` beside it.

    Raises:
        DataError: the file is damaged, or holds another number of checksums.
    """
    header = read_header(path)
    expected = -(-value_bytes // BLOCK_BYTES)
    if header.dtype != "u4" or header.items != expected:
        raise DataError(
            str(path), f"it holds {header.items} checksums where the column has {expected} blocks", 16, _AGAIN
        )
    return np.fromfile(path, "<u4", offset=HEADER_BYTES)


_AGAIN = "copy or convert it again"
