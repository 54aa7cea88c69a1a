"""Tables through pyarrow: CSV, Parquet, and the Arrow files in which Hugging Face saves a data set.

Numbers become fixed columns, text and lists ragged ones, lists that are all of one length (as declared) fixed ones. With
``stack`` all numbers but the columns of ``keep`` become one float32 column of a vector per row, which is what training
reads fastest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from memfit.data.column_file import dtype_name
from memfit.data.column_writer import Ragged, Values
from memfit.data.schema import Column
from memfit.data.sources import Block, Choices
from memfit.data.sources.images import decode_bytes
from memfit.errors import DataError, MissingFrameworkError

_ROWS = 65536


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise MissingFrameworkError("pyarrow", "data") from error
    return pyarrow


def arrow_files(folder: Path) -> list[Path]:
    """The Arrow files of a saved data set, in its order.

    Raises:
        DataError: the folder holds several splits, a selection by indices, or names files that are not there.
    """
    state = folder / "state.json"
    if not state.is_file():
        if (folder / "dataset_dict.json").is_file():
            splits = sorted(p.name for p in folder.iterdir() if p.is_dir())
            raise DataError(
                str(folder), f"it holds several splits: {', '.join(splits)}", hint="name one of their folders"
            )
        return sorted(folder.rglob("*.arrow"))
    try:
        content = json.loads(state.read_text(encoding="utf-8"))
        names = [str(entry["filename"]) for entry in content["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(str(state), f"it does not say which files there are: {error}") from error
    if content.get("_indices_files") or content.get("_indices_data_files"):
        raise DataError(
            str(folder), "it is a selection of rows by an index", hint="call flatten_indices() before saving"
        )
    files = [folder / Path(name).name for name in names]
    for file in files:
        if not file.is_file():
            raise DataError(str(file), "state.json names it, and it is not there")
    return files


class TableSource:
    """One table in one or more files of the same columns."""

    def __init__(self, paths: list[Path], choices: Choices, folder: Path | None = None) -> None:
        self.paths, self.choices, self.notes, self.rows = paths, choices, list[str](), None
        self._images: set[str] = set()
        self._labels: dict[str, tuple[str, ...]] = {}
        if folder is not None:
            self._read_features(folder)
        first = next(self._batches(paths[0]), None)
        if first is None:
            raise DataError(str(paths[0]), "it holds no rows")
        names = [field.name for field in first.schema]
        unknown = [name for name in choices.keep if name not in names]
        if unknown:
            raise DataError(str(paths[0]), f"it has no column {unknown[0]!r}", hint=f"its columns: {', '.join(names)}")
        self._stacked = self._numbers(first) if choices.stack else []
        self.columns = [self._column(name, first) for name in names if name not in self._stacked]
        if choices.stack:
            if not self._stacked:
                raise DataError(str(paths[0]), "it has no numbers to stack")
            self.columns.append(Column(choices.stack, "f4", (len(self._stacked),)))

    def _read_features(self, folder: Path) -> None:
        try:
            info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
            features = info.get("features") or {}
        except (OSError, ValueError, AttributeError):
            return
        for name, feature in features.items():
            kind = feature.get("_type") if isinstance(feature, dict) else None
            if kind == "Image":
                self._images.add(name)
            elif kind == "ClassLabel":
                self._labels[name] = tuple(str(n) for n in feature.get("names") or ())

    def _numbers(self, batch: Any) -> list[str]:
        types = _arrow().types
        return [
            f.name for f in batch.schema
            if f.name not in self.choices.keep
            and (types.is_floating(f.type) or types.is_integer(f.type) or types.is_boolean(f.type))
        ]  # fmt: skip

    def _column(self, name: str, batch: Any) -> Column:
        values = self._values(name, batch, self.paths[0], 0)
        if isinstance(values, Ragged):
            types, kind = _arrow().types, batch.schema.field(name).type
            text = types.is_string(kind) or types.is_large_string(kind)
            return Column(
                name, str(dtype_name(values.values.dtype)), ragged=True,
                meaning="text" if text else "encoded" if types.is_binary(kind) else "",
            )  # fmt: skip
        dtype, shape = str(dtype_name(values.dtype)), values.shape[1:]
        if name in self._images:
            return Column(name, dtype, shape, meaning="image", channels=self.choices.channels)
        return Column(
            name, dtype, shape, meaning="label" if name in self._labels else "", names=self._labels.get(name, ())
        )

    def _batches(self, path: Path) -> Iterator[Any]:
        arrow = _arrow()
        end = path.suffix.lower()
        try:
            if end in (".csv", ".tsv"):
                yield from _csv_batches(arrow, path)
            elif end == ".parquet":
                with arrow.parquet.ParquetFile(path) as file:
                    yield from file.iter_batches(_ROWS)
            else:
                with arrow.memory_map(str(path)) as mapped:
                    yield from (b for b in _arrow_reader(arrow, mapped) if b.num_rows)
        except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
            why = _csv_failure(arrow, path) if end in (".csv", ".tsv") else ""
            raise DataError(str(path), why or str(error).split("\n")[0]) from error

    def blocks(self, cursor: Any) -> Iterator[Block]:
        """Blocks of rows; the cursor is the file and the batches of it before."""
        start, skip = (int(cursor[0]), int(cursor[1])) if cursor else (0, 0)
        row = 0
        for at in range(start, len(self.paths)):
            for number, batch in enumerate(self._batches(self.paths[at])):
                if number >= skip:
                    yield self._block(batch, self.paths[at], row), [at, number + 1]
                row += batch.num_rows
            skip = 0

    def _block(self, batch: Any, path: Path, row: int) -> dict[str, Values]:
        here = set(batch.schema.names)
        wanted = {c.name for c in self.columns if c.name != self.choices.stack} | set(self._stacked)
        if here != wanted:
            raise DataError(str(path), f"its columns differ from the first file's: {sorted(here ^ wanted)}")
        names = [c.name for c in self.columns if c.name != self.choices.stack]
        block: dict[str, Values] = {name: self._values(name, batch, path, row) for name in names}
        if self._stacked:
            parts = [
                np.asarray(self._number(batch.column(name), name, path, row), np.float32) for name in self._stacked
            ]
            block[self.choices.stack] = np.stack(parts, axis=1)
        return block

    def _number(self, array: Any, name: str, path: Path, row: int) -> Any:
        if array.null_count and not _arrow().types.is_floating(array.type):
            if self.choices.stack and name in self._stacked:
                array = array.cast("double")
            else:
                missing = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
                hint = "fill it, or --stack turns numbers into floats, where a missing one is no number"
                raise DataError(
                    str(path), f"column {name!r} has no value in row {row + missing} (the first is 0)", hint=hint
                )
        return array.to_numpy(zero_copy_only=False)

    def _values(self, name: str, batch: Any, path: Path, row: int) -> Values:
        types, array = _arrow().types, batch.column(name)
        kind = array.type
        if types.is_dictionary(kind):
            array = array.dictionary_decode()
            kind = array.type
        if name in self._images and types.is_struct(kind):
            return self._decoded(array, path)
        if types.is_null(kind):
            raise DataError(str(path), f"column {name!r} has no values at all")
        if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
            return _bytes_of(array)
        if types.is_fixed_size_list(kind):
            flat = self._number(array.flatten(), name, path, row)
            return np.asarray(flat).reshape(len(array), kind.list_size)
        if types.is_list(kind) or types.is_large_list(kind):
            lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            flat = array.flatten()
            if dtype_name(np.dtype(_numpy_type(flat.type))) is None:
                raise DataError(str(path), f"column {name!r} holds lists of {flat.type}")
            return Ragged(np.asarray(self._number(flat, name, path, row)), lengths)
        if types.is_temporal(kind):
            array = array.cast("int64" if kind.bit_width == 64 else "int32")
            kind = array.type
        if dtype_name(np.dtype(_numpy_type(kind))) is None:
            raise DataError(str(path), f"column {name!r} is of type {kind}", hint="cast it to numbers or text")
        return np.asarray(self._number(array, name, path, row))

    def _decoded(self, array: Any, path: Path) -> Values:
        images = []
        for entry in array.to_pylist():
            if not entry or entry.get("bytes") is None:
                raise DataError(
                    str(path), "an image is kept as a path, not as its bytes", hint="save the data set with its images"
                )
            image = decode_bytes(entry["bytes"], self.choices.size, str(path))
            images.append(image.transpose(2, 0, 1) if self.choices.channels == "first" else image)
        if len({image.shape for image in images}) != 1:
            raise DataError(str(path), "its images differ in size", hint="--size 224x224 brings all to one size")
        return np.stack(images)


def _csv_batches(arrow: Any, path: Path, threads: bool = True) -> Iterator[Any]:
    csv = arrow.csv
    parse = csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    reader = csv.open_csv(path, read_options=csv.ReadOptions(use_threads=threads), parse_options=parse)
    yield from (batch for batch in reader if batch.num_rows)


def _csv_failure(arrow: Any, path: Path) -> str:
    """Why a CSV file cannot be read, with the row: only a reader on one thread counts them, so it is read once more."""
    try:
        for _ in _csv_batches(arrow, path, threads=False):
            pass
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        why = str(error).split("\n")[0]
        return re.sub(r"Row #(\d+)", r"row \1 of the file (the header is row 1)", why)
    return ""


def _arrow_reader(arrow: Any, mapped: Any) -> Iterator[Any]:
    try:
        yield from arrow.ipc.open_stream(mapped)
    except arrow.ArrowInvalid:
        mapped.seek(0)
        reader = arrow.ipc.open_file(mapped)
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def _bytes_of(array: Any) -> Ragged:
    """Texts or binaries as their bytes; a missing one is empty."""
    arrow = _arrow()
    array = array.cast(arrow.large_binary()) if not arrow.types.is_large_string(array.type) else array
    array = array.fill_null(b"" if arrow.types.is_large_binary(array.type) else "")
    _, offsets, data = array.buffers()
    places = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    values = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return Ragged(values[int(places[0]) : int(places[-1])], np.diff(places))


def _numpy_type(kind: Any) -> Any:
    try:
        return kind.to_pandas_dtype()
    except NotImplementedError:
        return object
