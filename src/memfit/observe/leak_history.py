"""The levels of a watched program on disk, as they are sampled: what is left to judge by when the program is killed.

One line a sample, written at once, so that the system keeps it whatever becomes of the process; a last line cut off is
passed over. Cost: 3 us a sample, of which there are about 40 for every doubling of the steps; 60 bytes each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from memfit.observe.leak_sources import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_BYTES = 8 << 20


class History:
    """Writes the samples of a process to a file; ``add`` is called after each."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
        self._numbers: dict[int, int] = {}
        self._written = 0

    def add(self, source: Source) -> None:
        """The newest sample of a source."""
        number = self._numbers.get(id(source))
        text = ""
        if number is None:
            number = self._numbers[id(source)] = len(self._numbers)
            text = json.dumps([number, source.name, source.kind, source.depth, source.first]) + "\n"
        values: Sequence[float] = [column[-1] for column in source.samples.columns()]
        text += json.dumps([number, *values]) + "\n"
        if self._written < _MOST_BYTES:
            self._written += os.write(self._file, text.encode())


def read_history(path: str | Path) -> list[Source]:
    """The sources of a process that is gone, with their samples; empty where it wrote none."""
    found: dict[int, Source] = {}
    for row in _rows(path):
        if len(row) == 5 and isinstance(row[1], str):
            found[row[0]] = Source(row[1], str(row[2]), int(row[3]), first=float(row[4]))
        elif len(row) == 6 and row[0] in found:
            source = found[row[0]]
            source.count, source.last = int(row[1]), float(row[2])
            source.samples.add(*(kind(value) for kind, value in zip((int, float, int, int, int), row[1:], strict=True)))
    return list(found.values())


def _rows(path: str | Path) -> Iterable[list]:  # type: ignore[type-arg]
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # cut off
            continue
        if isinstance(row, list):
            yield row
