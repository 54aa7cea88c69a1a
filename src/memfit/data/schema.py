"""What a data set holds: its columns, the rows they have in common, and where the text of that lies (dataset.json).

A column is *fixed* (each row the same shape: images of one size, features, labels) or *ragged* (each row a run of values
of its own length: text, encoded images, token sequences). ``meaning`` says how to read the values: ``image`` (8-bit
pixels, channels last or first), ``text`` (UTF-8), ``encoded`` (a file's bytes), or nothing.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memfit.data.column_file import DTYPES, numpy_dtype
from memfit.errors import DataError

FORMAT, VERSION = "memfit data set", 1
JSON_NAME = "dataset.json"
_MEANINGS = ("", "image", "text", "encoded", "label", "tokens")


@dataclass(frozen=True)
class Column:
    """One column. ``shape``: of a row of a fixed column; ``channels``: ``first``, ``last`` or empty; ``names``: of labels."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    ragged: bool = False
    meaning: str = ""
    channels: str = ""
    names: tuple[str, ...] = ()

    @property
    def item_bytes(self) -> int:
        """Bytes of a row of a fixed column, of one value of a ragged one."""
        return numpy_dtype(self.dtype).itemsize * (1 if self.ragged else math.prod(self.shape))

    def to_json(self) -> dict[str, Any]:
        """The column as dataset.json holds it."""
        return {
            "name": self.name, "dtype": self.dtype, "shape": list(self.shape), "ragged": self.ragged,
            "meaning": self.meaning, "channels": self.channels, "names": list(self.names),
        }  # fmt: skip


@dataclass(frozen=True)
class Schema:
    """The text of a data set. ``statistics``: by column, as ``Moments.to_json``; ``source``: what it was made of."""

    rows: int
    columns: tuple[Column, ...]
    statistics: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)

    def to_text(self) -> str:
        """The content of dataset.json, its own checksum included."""
        content = {
            "format": FORMAT, "version": VERSION, "rows": self.rows, "columns": [c.to_json() for c in self.columns],
            "statistics": self.statistics, "source": self.source,
        }  # fmt: skip
        return json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n"

    @property
    def identity(self) -> int:
        """32 bits that differ between data sets of other rows or columns: what a saved position belongs to."""
        content = [self.rows, [column.to_json() for column in self.columns]]
        return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def read_schema(folder: Path) -> Schema:
    """The schema of the data set in ``folder``.

    Raises:
        DataError: not a data set, or its dataset.json is damaged or says what cannot be.
    """
    path = folder / JSON_NAME
    if not folder.is_dir():
        raise DataError(str(folder), "there is no such folder", hint="memfit data convert makes a data set")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(str(folder), f"it holds no {JSON_NAME}", hint="memfit data convert makes a data set") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(path), str(error)) from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode())
        raise DataError(str(path), f"it is no JSON ({error.msg})", offset, "convert the data again") from error
    except RecursionError as error:
        raise DataError(str(path), "it is nested too deeply") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(str(path), "it describes no data set of memfit")
    if content.get("version") != VERSION:
        raise DataError(str(path), f"it is of version {content.get('version')!r}; this memfit reads {VERSION}")
    if content.pop("checksum", None) != _checksum(content):
        raise DataError(
            str(path), "it does not match its checksum", hint="it was edited or damaged; convert the data again"
        )
    try:
        columns = tuple(_column(entry) for entry in content["columns"])
        rows = content["rows"]
        names = [column.name for column in columns]
        if not isinstance(rows, int) or rows < 0 or not columns or len(set(names)) != len(names):
            raise ValueError("rows or columns are missing or twice there")
        statistics = dict(content["statistics"])
        _check_statistics(statistics, set(names))
        return Schema(rows, columns, statistics, dict(content["source"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(str(path), f"its schema is wrong: {error}") from error


def _column(entry: dict[str, Any]) -> Column:
    column = Column(
        entry["name"], entry["dtype"], tuple(int(n) for n in entry["shape"]), bool(entry["ragged"]), entry["meaning"],
        entry["channels"], tuple(str(name) for name in entry["names"]),
    )  # fmt: skip
    check_name(column.name)
    if column.dtype not in DTYPES:
        raise ValueError(f"column {column.name!r} is of unknown type {column.dtype!r}")
    if any(n < 1 for n in column.shape):
        raise ValueError(f"column {column.name!r} has the shape {column.shape}")
    if column.meaning not in _MEANINGS or column.channels not in ("", "first", "last"):
        raise ValueError(f"column {column.name!r} means {column.meaning!r}, channels {column.channels!r}")
    return column


def _check_statistics(statistics: dict[str, Any], names: set[str]) -> None:
    """One number for each column or channel in every list; a list of another length would be broadcast without a word."""
    for name, found in statistics.items():
        lengths = {what: len(numbers) for what, numbers in found.items() if isinstance(numbers, list)}
        if name not in names or len(set(lengths.values())) > 1:
            raise ValueError(f"the statistics of {name!r} do not belong together: {lengths}")


def check_name(name: str) -> None:
    """A column's name is a file's name too.

    Raises:
        ValueError: it is empty, too long, or holds what a file's name should not.
    """
    if not isinstance(name, str) or not 0 < len(name.encode()) <= 200:
        raise ValueError(f"{name!r} is no name of a column")
    if (
        name.startswith(".")
        or name.endswith((".off", ".sum", ".bin"))
        or any(c in "/\\\0" or ord(c) < 32 for c in name)
    ):
        raise ValueError(f"{name!r} is no name of a column: it names a file too")


def _checksum(content: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
