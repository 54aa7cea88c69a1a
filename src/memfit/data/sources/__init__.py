"""Where data comes from: each source says its columns, then hands out blocks of rows from a cursor on.

A cursor is plain JSON; ``blocks(None)`` starts at the beginning. A source never unpickles and never writes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from memfit.data.column_writer import Values
from memfit.data.schema import Column
from memfit.errors import DataError

BLOCK_BYTES = 8 << 20

Block = tuple[dict[str, Values], Any]


@dataclass(frozen=True)
class Choices:
    """What the user chose. ``size``: height and width that images are brought to; ``skip_bad``: leave out unreadable ones;
    ``stack``: the name of one column for all numbers of a table; ``keep``: columns of it that stay apart; ``dtype``: of raw
    tokens; ``tokenizer``: a tokenizer.json; ``encoded``: keep images as their files' bytes.
    """

    size: tuple[int, int] | None = None
    channels: str = "last"
    skip_bad: bool = False
    stack: str = ""
    keep: tuple[str, ...] = ()
    dtype: str = "uint16"
    tokenizer: str = ""
    encoded: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the identity of an interrupted convert."""
        return {**vars(self), "size": list(self.size or ()), "keep": list(self.keep)}


class Source(Protocol):
    """Anything that rows come from. ``rows``: how many, or None where only reading tells; ``notes``: what was left out."""

    @property
    def columns(self) -> list[Column]:
        """Its columns."""
        ...

    @property
    def rows(self) -> int | None:
        """Rows, or None."""
        ...

    @property
    def notes(self) -> list[str]:
        """What was left out."""
        ...

    def blocks(self, cursor: Any) -> Iterator[Block]:
        """Blocks of rows from the cursor on, each with the cursor after it."""
        ...


def identity(paths: list[Path], choices: Choices) -> dict[str, Any]:
    """What an interrupted convert must find unchanged: names, sizes and times of the files, and the choices."""
    digest, total = 0, 0
    for path in paths:
        facts = path.stat()
        digest = zlib.crc32(f"{path}:{facts.st_size}:{facts.st_mtime_ns}\n".encode(), digest)
        total += facts.st_size
    return {"files": len(paths), "bytes": total, "digest": f"{digest:08x}", "choices": choices.to_json()}


def open_source(path: Path, choices: Choices) -> tuple[Source, list[Path]]:
    """The source that fits what lies at ``path``, and its files.

    Raises:
        DataError: nothing there, or of a kind that is not known.
    """
    if not path.exists():
        raise DataError(str(path), "there is no such file or folder")
    if path.is_dir():
        return _folder(path, choices)
    name = path.name.lower()
    if path.stat().st_size == 0:
        raise DataError(str(path), "it is empty", 0)
    if name.endswith((".npy", ".npz")):
        from memfit.data.sources.arrays import ArraySource

        return ArraySource(path), [path]
    if name.endswith((".csv", ".tsv", ".parquet", ".arrow")):
        from memfit.data.sources.tables import TableSource

        return TableSource([path], choices), [path]
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        from memfit.data.sources.tars import TarSource

        return TarSource([path], choices), [path]
    if name.endswith((".bin", ".txt")):
        from memfit.data.sources.tokens import TokenSource

        return TokenSource(path, choices), [path]
    raise DataError(str(path), "its kind is not known from its name", hint=_KINDS)


def _folder(path: Path, choices: Choices) -> tuple[Source, list[Path]]:
    files = sorted(Path(at) / name for at, _, names in os.walk(path) for name in names if not name.startswith("."))
    ends = {file.suffix.lower() for file in files}
    if (path / "state.json").is_file() or ".arrow" in ends:
        from memfit.data.sources.tables import TableSource, arrow_files

        chosen = arrow_files(path)
        return TableSource(chosen, choices, path), chosen
    for end in (".parquet", ".csv"):
        chosen = [file for file in files if file.suffix.lower() == end]
        if chosen:
            from memfit.data.sources.tables import TableSource

            return TableSource(chosen, choices), chosen
    tars = [file for file in files if file.name.lower().endswith((".tar", ".tar.gz", ".tgz"))]
    if tars:
        from memfit.data.sources.tars import TarSource

        return TarSource(tars, choices), tars
    from memfit.data.sources.images import FolderSource, image_files

    images = image_files(files)
    if images:
        return FolderSource(path, images, choices), images
    raise DataError(str(path), "it holds nothing that can be converted", hint=_KINDS)


_KINDS = (
    "known: .npy, .npz, .csv, .tsv, .parquet, .arrow, .tar, .bin and .txt of tokens; folders of images, of tables, of tar "
    "files, or of a saved Hugging Face data set"
)
