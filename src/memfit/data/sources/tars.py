"""WebDataset tar files: members of one sample share the name up to the first dot, what follows names the column.

Nothing is unpacked to disk, and no name of a member is used as a path. ``.cls`` holds a number, images are decoded,
``.npy`` arrays are read without objects, ``.txt`` and ``.json`` become text, all else stays the bytes of its file.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from memfit.data.column_file import dtype_name
from memfit.data.column_writer import Ragged
from memfit.data.schema import Column
from memfit.data.sources import BLOCK_BYTES, Block, Choices
from memfit.data.sources.images import ENDS, decode_bytes
from memfit.errors import DataError

_NUMBERS, _TEXTS = ("cls", "cls2", "index"), ("txt", "text", "json", "caption", "transcript")


class TarSource:
    """Tar files, one after another."""

    def __init__(self, paths: list[Path], choices: Choices) -> None:
        self.paths, self.choices, self.notes, self.rows = paths, choices, list[str](), None
        first = next(self._samples(paths[0], 0), None)
        if first is None:
            raise DataError(str(paths[0]), "it holds no files")
        self.columns = [self._column(end, self._value(end, data, paths[0])) for end, data in first[1].items()]

    def _column(self, end: str, value: Any) -> Column:
        if end in _NUMBERS:
            return Column(end, "i8", (), meaning="label")
        if isinstance(value, np.ndarray) and end == "npy":
            return Column(end, str(dtype_name(value.dtype)), value.shape)
        if isinstance(value, np.ndarray):
            return Column(end, "u1", value.shape, meaning="image", channels=self.choices.channels)
        return Column(end, "u1", ragged=True, meaning="text" if end in _TEXTS else "encoded")

    def _value(self, end: str, data: bytes, path: Path) -> Any:
        if end in _NUMBERS:
            try:
                return int(data)
            except ValueError as error:
                raise DataError(str(path), f"a member .{end} holds {data[:40]!r}, no number") from error
        if end == "npy":
            try:
                array = np.load(io.BytesIO(data), allow_pickle=False)
            except (ValueError, EOFError, OSError) as error:
                raise DataError(str(path), f"a member .npy is no array: {error}") from error
            if dtype_name(array.dtype) is None:
                raise DataError(str(path), f"a member .npy is of type {array.dtype}")
            return array.astype(array.dtype.newbyteorder("<"), copy=False)
        if f".{end}" in ENDS and not self.choices.encoded:
            image = decode_bytes(data, self.choices.size, str(path))
            return image.transpose(2, 0, 1) if self.choices.channels == "first" else image
        return data

    def _samples(self, path: Path, skip: int) -> Iterator[tuple[str, dict[str, bytes]]]:
        key, found, passed = "", dict[str, bytes](), 0
        at = 0
        try:
            with tarfile.open(path, "r:*") as archive:
                for member in archive:
                    at = member.offset
                    if not member.isfile():
                        continue
                    folder, _, name = member.name.rpartition("/")
                    stem, dot, end = name.partition(".")
                    if not dot or not stem:
                        continue
                    if f"{folder}/{stem}" != key:
                        if found and passed >= skip:
                            yield key, found
                        passed += bool(key)
                        key, found = f"{folder}/{stem}", {}
                    file = archive.extractfile(member)
                    if file is None:
                        continue
                    data = file.read() if passed >= skip else b""
                    if passed >= skip and len(data) < member.size:
                        raise DataError(
                            str(path), f"its member {member.name!r} is cut short", member.offset_data + len(data)
                        )
                    found[end.lower()] = data
                if found and passed >= skip:
                    yield key, found
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise DataError(str(path), f"it is no whole tar file: {error}", at) from error

    def blocks(self, cursor: Any) -> Iterator[Block]:
        """Blocks of samples; the cursor is the tar file and the samples of it before."""
        shard, skip = (int(cursor[0]), int(cursor[1])) if cursor else (0, 0)
        names = {column.name for column in self.columns}
        rows: list[dict[str, Any]] = []
        held, done = 0, skip
        for at in range(shard, len(self.paths)):
            for key, members in self._samples(self.paths[at], done):
                done += 1
                if set(members) != names:
                    raise DataError(
                        str(self.paths[at]), f"the sample {key.strip('/')!r} has {sorted(members)} where the first has "
                        f"{sorted(names)}",
                    )  # fmt: skip
                try:
                    rows.append({end: self._value(end, data, self.paths[at]) for end, data in members.items()})
                except DataError:
                    if not self.choices.skip_bad:
                        raise
                    self.notes.append(f"left out {key.strip('/')}")
                    continue
                held += sum(
                    len(data) if isinstance(data, bytes) else getattr(data, "nbytes", 8) for data in rows[-1].values()
                )
                if held >= BLOCK_BYTES:
                    yield self._block(rows, at), [at, done]
                    rows, held = [], 0
            if rows:
                yield self._block(rows, at), [at + 1, 0]
                rows, held = [], 0
            done = 0

    def _block(self, rows: list[dict[str, Any]], at: int) -> dict[str, Any]:
        block: dict[str, Any] = {}
        for column in self.columns:
            values = [row[column.name] for row in rows]
            if column.ragged:
                lengths = np.array([len(value) for value in values], np.int64)
                block[column.name] = Ragged(np.frombuffer(b"".join(values), np.uint8), lengths)
            elif column.meaning == "label":
                block[column.name] = np.array(values, "<i8")
            else:
                for value in values:
                    if value.shape != column.shape:
                        hint = "--size 224x224 brings all to one size, --encoded keeps the files as they are"
                        raise DataError(
                            str(self.paths[at]), f".{column.name} has the shape {value.shape} where the first has "
                            f"{column.shape}", hint=hint if column.meaning == "image" else "",
                        )  # fmt: skip
                block[column.name] = np.stack(values)
        return block
