"""Any source into a data set: rows stream through, statistics are taken as they pass, an interruption costs nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from memfit.data.dataset import Dataset
from memfit.data.dataset_writer import DatasetWriter, check_target
from memfit.data.moments import Moments
from memfit.data.schema import Column
from memfit.data.sources import Choices, identity, open_source

Progress = Callable[[str, int | None, int | None], None]


def convert(
    source: str | Path, target: str | Path, choices: Choices | None = None, *, overwrite: bool = False,
    progress: Progress | None = None, notes: list[str] | None = None,
) -> Dataset:  # fmt: skip
    """Make the data set ``target`` of what lies at ``source``; returns it, opened.

    Args:
        source: a file or folder, of a kind that its name tells.
        target: the folder to make; an interrupted convert of the same source and choices goes on.
        choices: sizes, types, what to leave out.
        overwrite: replace a data set that stands at ``target``.
        progress: called with a text, the rows done and the rows there are, where known.
        notes: filled with what was left out.

    Raises:
        DataError: the source cannot be read, with its file and offset.
        OutputError: the target cannot be written; what is written stays for the next run.

    Cost: one read of the source, one write; memory of one block (8 MiB and what decoding takes).
    """
    choices = choices or Choices()
    check_target(Path(target), overwrite)
    opened, files = open_source(Path(source), choices)
    facts: dict[str, Any] = {"path": Path(source).name, **identity(files, choices)}
    writer = DatasetWriter(target, opened.columns, facts, overwrite)
    done = False
    try:
        moments = {c.name: Moments(c) for c in opened.columns if _counted(c)}
        for column in opened.columns:
            if column.name in writer.state:
                moments[column.name] = Moments.from_json(column, writer.state[column.name])
        for block, cursor in opened.blocks(writer.cursor):
            for name, taken in moments.items():
                values = block[name]
                assert isinstance(values, np.ndarray)
                taken.add(values)
            writer.append(block, cursor, {name: taken.to_json() for name, taken in moments.items()})
            if progress is not None:
                progress(f"converting {Path(source).name}: {writer.rows} rows", writer.rows, opened.rows)
        writer.finish({name: taken.to_json() for name, taken in moments.items()})
        done = True
    finally:
        if not done:
            with contextlib.suppress(OSError):
                writer.leave()
        if notes is not None:
            notes.extend(opened.notes)
    return Dataset(target)


def _counted(column: Column) -> bool:
    return not column.ragged and column.meaning != "tokens"
