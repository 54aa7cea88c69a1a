"""Make a data set that appears whole or not at all, and that goes on where it was interrupted.

Everything is written into ``.NAME.part`` beside the target. Every 64 MiB (or second) a checkpoint is made: the files are
brought to the disk, then ``progress.json`` (written whole, by rename) says how far each column is and where the source
stands. Whoever starts again with the same source and the same choices cuts the files back to the checkpoint and goes on.
At the end the headers are written, everything is brought to the disk, and one rename makes the folder the data set.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from memfit.data.column_writer import ColumnWriter, Values
from memfit.data.schema import JSON_NAME, Column, Schema, check_name
from memfit.errors import DataError, OutputError
from memfit.files import write_atomically

CHECKPOINT_BYTES = 64 << 20
CHECKPOINT_SECONDS = 1.0
_PROGRESS, _LOCK = "progress.json", "lock"
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


class DatasetWriter:
    """Writes one data set. ``cursor``: where the source goes on (None: at its start); ``rows``: written so far.

    Args:
        path: the folder to make.
        columns: its columns.
        source: what it is made of, as JSON; a checkpoint of another source is thrown away.
        overwrite: replace a data set that stands at ``path``, at the end, in one step.

    Raises:
        OutputError: the target exists, cannot be written, or another process writes it now.
        DataError: a column's name is none.
    """

    def __init__(
        self, path: str | Path, columns: list[Column], source: dict[str, Any], overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        check_target(self.path, overwrite)
        for column in columns:
            try:
                check_name(column.name)
            except ValueError as error:
                raise DataError(str(path), str(error)) from error
        self.folder = self.path.parent / f".{self.path.name}.part"
        self.columns, self.source = columns, source
        self.cursor: Any = None
        self.state: dict[str, Any] = {}
        self._since, self._when = 0, time.monotonic()
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(self._lock)
                raise OutputError(str(path), "another process is writing it now") from error
            self._writers = self._resume() or self._start()
        except OSError as error:
            raise OutputError(str(path), error.strerror or str(error)) from error

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._writers[0].rows

    def _identity(self) -> dict[str, Any]:
        identity = {"columns": [column.to_json() for column in self.columns], "source": self.source}
        return dict(json.loads(json.dumps(identity)))

    def _start(self) -> list[ColumnWriter]:
        for path in self.folder.iterdir():
            if path.name != _LOCK:
                path.unlink()
        return [ColumnWriter(self.folder, column) for column in self.columns]

    def _resume(self) -> list[ColumnWriter] | None:
        """The writers as the checkpoint left them, or None where there is none of this source."""
        try:
            saved = json.loads((self.folder / _PROGRESS).read_text(encoding="utf-8"))
            if saved["identity"] != self._identity():
                return None
            writers = [ColumnWriter(self.folder, column) for column in self.columns]
            for writer, state in zip(writers, saved["columns"], strict=True):
                sums = [
                    np.fromfile(self.folder / f"{file.path.name}.sums", "<u4").tolist() for file in writer.files
                ]  # fmt: skip
                writer.cut_back(state, sums)
                for file in writer.files:
                    np.array(file.sums, "<u4").tofile(self.folder / f"{file.path.name}.sums")
            self.cursor, self.state = saved["cursor"], saved["state"]
            return writers
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def append(self, block: dict[str, Values], cursor: Any, state: dict[str, Any]) -> None:
        """Write rows of every column; ``cursor``: where the source stands after them, ``state``: what else to remember.

        Raises:
            OutputError: the disk is full or fails; what was written before stays, and the next run goes on from there.
            DataError: the columns of the block differ in rows, or a value does not fit its column.
        """
        lengths = {name: len(values) for name, values in block.items()}
        if len(set(lengths.values())) != 1 or set(block) != {column.name for column in self.columns}:
            raise DataError(str(self.path), f"rows of the columns differ: {lengths}")
        try:
            for writer in self._writers:
                writer.append(block[writer.column.name])
        except ValueError as error:
            raise DataError(str(self.source.get("path", self.path)), f"{error}, near row {self.rows}") from error
        except OSError as error:
            raise self._disk(error) from error
        self.cursor, self.state = cursor, state
        self._since += sum(_nbytes(values) for values in block.values())
        if self._since >= CHECKPOINT_BYTES or time.monotonic() - self._when >= CHECKPOINT_SECONDS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Make what is written so far survive whatever comes."""
        try:
            for writer in self._writers:
                for file in writer.files:
                    file.sync()
                    self._save_sums(file.path.name, file.sums)
            saved = {
                "identity": self._identity(), "cursor": self.cursor, "state": self.state,
                "columns": [writer.state() for writer in self._writers],
            }  # fmt: skip
            write_atomically(self.folder / _PROGRESS, json.dumps(saved))
        except OSError as error:
            raise self._disk(error) from error
        self._since, self._when = 0, time.monotonic()

    def _save_sums(self, name: str, sums: list[int]) -> None:
        """Append the checksums that the file of them lacks: it may hold more than a checkpoint counts, never less."""
        path = self.folder / f"{name}.sums"
        known = path.stat().st_size // 4 if path.exists() else 0
        with open(path, "r+b" if known else "wb") as file:
            start = min(known, len(sums))
            start = max(start - 1, 0)
            file.seek(4 * start)
            file.write(np.array(sums[start:], "<u4").tobytes())
            file.truncate(4 * len(sums))

    def finish(self, statistics: dict[str, Any]) -> Schema:
        """Make the folder the data set; returns its schema.

        Raises:
            OutputError: the disk is full or fails.
        """
        schema = Schema(self.rows, tuple(self.columns), statistics, self.source)
        try:
            for writer in self._writers:
                writer.finish()
            write_atomically(self.folder / JSON_NAME, schema.to_text())
            for path in [self.folder / _PROGRESS, *self.folder.glob("*.sums")]:
                path.unlink(missing_ok=True)
            _sync_folder(self.folder)
            _take_place(self.folder, self.path)
            (self.path / _LOCK).unlink(missing_ok=True)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise self._disk(error) from error
        os.close(self._lock)
        return schema

    def leave(self) -> None:
        """Stop without finishing: the checkpoint stays for the next run."""
        for writer in self._writers:
            writer.close()
        os.close(self._lock)

    def discard(self) -> None:
        """Stop and remove everything written."""
        self.leave()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _disk(self, error: OSError) -> OutputError:
        free = shutil.disk_usage(self.folder).free
        why = f"{error.strerror or error} after {self.rows} rows ({free} bytes are free)"
        return OutputError(str(self.path), f"{why}; nothing is lost: the same command goes on from its last checkpoint")


def check_target(path: Path, overwrite: bool = False) -> None:
    """Refuse at once a target that could not be made at the end.

    Raises:
        OutputError: it exists, or its folder does not or cannot be written.
    """
    if path.name in ("", ".", ".."):
        raise OutputError(str(path), "it is no name of a new folder")
    if os.path.lexists(path) and not (overwrite and (path / JSON_NAME).is_file()):
        hint = "" if overwrite else " (--force replaces a data set)"
        raise OutputError(str(path), f"it exists{hint}")
    if not path.parent.is_dir():
        raise OutputError(str(path), f"there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(str(path), f"no permission to write in {path.parent}")


def _nbytes(values: Values) -> int:
    return int(values.nbytes if isinstance(values, np.ndarray) else values.values.nbytes)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_place(made: Path, target: Path) -> None:
    """Rename ``made`` to ``target``; what stood there is exchanged in the same step and then removed."""
    if not target.exists():
        os.rename(made, target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    exchange = getattr(libc, "renameat2", None)
    names = _AT_FDCWD, os.fsencode(made), _AT_FDCWD, os.fsencode(target)
    if (
        exchange is None or exchange(*names, _RENAME_EXCHANGE) != 0
    ):  # a library or file system that cannot exchange: two renames, between which neither stands there
        aside = made.with_suffix(".old")
        os.rename(target, aside)
        os.rename(made, target)
        made = aside
    shutil.rmtree(made, ignore_errors=True)
