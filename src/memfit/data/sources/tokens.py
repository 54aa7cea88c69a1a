"""Tokens: raw numbers in a .bin file, or text: by a tokenizer's file, else byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from memfit.data.column_file import dtype_name
from memfit.data.schema import Column
from memfit.data.sources import BLOCK_BYTES, Block, Choices
from memfit.errors import DataError, MissingFrameworkError


class TokenSource:
    """One long row of tokens, a column ``tokens`` with a row for each."""

    def __init__(self, path: Path, choices: Choices) -> None:
        self.path, self.notes = path, list[str]()
        self.rows: int | None = None
        self.tokenizer: Any = None
        if path.suffix.lower() == ".bin":
            self.dtype = np.dtype("<" + np.dtype(choices.dtype).str[1:])
            size = path.stat().st_size
            if size % self.dtype.itemsize:
                cut = size - size % self.dtype.itemsize
                raise DataError(
                    str(path),
                    f"its {size} bytes are no whole number of {self.dtype.name}",
                    cut,
                    "--dtype says their type",
                )
            self.rows = size // self.dtype.itemsize
        else:
            self.dtype = np.dtype("u1")
            if choices.tokenizer:
                self.tokenizer = _tokenizer(choices.tokenizer)
                self.dtype = np.dtype("<u2" if self.tokenizer.get_vocab_size() <= 65536 else "<u4")
            else:
                self.rows = path.stat().st_size
        self.columns = [Column("tokens", str(dtype_name(self.dtype)), (), meaning="tokens")]

    def blocks(self, cursor: Any) -> Iterator[Block]:
        """Blocks of tokens; the cursor is the bytes of the file before."""
        with open(self.path, "rb") as file:
            file.seek(int(cursor or 0))
            while data := file.read(BLOCK_BYTES):
                if self.tokenizer is not None:
                    data += file.readline()  # a block ends where a line does
                    tokens = np.array(self._encode(data), self.dtype)
                else:
                    tokens = np.frombuffer(data, self.dtype)
                yield {"tokens": tokens}, file.tell()

    def _encode(self, data: bytes) -> list[int]:
        try:
            lines = data.decode("utf-8").splitlines(keepends=True)
        except UnicodeDecodeError as error:
            raise DataError(str(self.path), f"it is no UTF-8 text ({error.reason})", error.start) from error
        return [
            token for encoding in self.tokenizer.encode_batch(lines, add_special_tokens=False) for token in encoding.ids
        ]


def _tokenizer(path: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingFrameworkError("tokenizers", "examples") from error
    try:
        return Tokenizer.from_file(path)
    except Exception as error:  # the library raises plain Exception for every kind of bad file
        raise DataError(path, f"it is no tokenizer: {error}") from error
