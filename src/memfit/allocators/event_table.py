"""Allocation events as CSV, for traces that other tools wrote: one row an event, in the order in which they happened.

::

    action,id,size,stream            action: alloc, free, free_requested or empty_cache (also malloc, release, + and -)
    alloc,a,4096,0                   id: any text; it may come again after its free
    alloc,b,512,0                    size: bytes of an alloc, a whole number above 0; left empty for the rest
    free,a,,                         stream: a whole number, 0 where there is no such column

Names of columns may be written with other cases and spaces; ``event`` or ``op`` for action, ``ptr``, ``address``, ``block``
or ``name`` for id, ``bytes`` or ``nbytes`` for size. What is wrong is one TraceError that names the
line. Cost: about 1 us a row.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from memfit.errors import TraceError
from memfit.ir.requests import Action, Requests

ACTIONS = {
    "alloc": Action.ALLOCATE, "allocate": Action.ALLOCATE, "malloc": Action.ALLOCATE, "+": Action.ALLOCATE,
    "free": Action.FREE, "release": Action.FREE, "-": Action.FREE, "free_completed": Action.FREE,
    "free_requested": Action.FREE_REQUESTED, "empty_cache": Action.EMPTY_CACHE,
}  # fmt: skip
ALIASES = {
    "event": "action", "op": "action", "ptr": "id", "address": "id", "addr": "id", "block": "id", "name": "id",
    "bytes": "size", "nbytes": "size",
}  # fmt: skip
COLUMNS = ("action", "id", "size", "stream")
LARGEST_SIZE = 10**12  # bytes of one request; above it the unit is taken to be wrong
_SHOWN = 60


def is_event_table(text: str) -> bool:
    """Whether the first line is a header of events (rather than of lifetimes)."""
    return "action" in _names(text.split("\n", 1)[0].rstrip("\r").split(","))


def read_event_table(path: str | Path) -> Requests:
    """The Requests of a CSV file of events.

    Raises:
        TraceError: there is no such file, or it holds no events that a program can have made.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TraceError(str(path), error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise TraceError(str(path), f"byte {error.start} of it is no text; write CSV such as action,id,size") from error
    return parse_event_table(text, str(path))


def parse_event_table(text: str, where: str = "events") -> Requests:
    """The Requests of a table's text; ``where``: what errors call it."""
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = next(rows, None)
        if header is None:
            raise TraceError(where, "it is empty; write a header such as action,id,size and a row an event")
        names = _names(header)
        place: dict[str, int] = {name: names.index(name) for name in COLUMNS if name in names}
        for name in ("action", "id", "size"):
            if name not in place:
                raise TraceError(f"{where} line 1", f"no column {name!r} in {_cut(','.join(header))!r}")
        reader = _Events(where, len(names), place)
        for row in rows:
            if row:
                reader.add(rows.line_num, row)
    except csv.Error as error:
        raise TraceError(f"{where} line {rows.line_num}", f"it is no CSV ({error})") from error
    return reader.requests()


class _Events:
    """Rows checked one by one against what came before."""

    def __init__(self, where: str, width: int, place: dict[str, int]) -> None:
        self.where, self.width, self.place = where, width, place
        self.held: dict[str, int] = {}
        self.waiting: dict[str, int] = {}
        self.labels: list[str] = []
        self.stream_of: list[int] = []
        self.columns: tuple[list[int], list[int], list[int], list[int]] = ([], [], [], [])

    def add(self, line: int, row: list[str]) -> None:
        """One event."""
        if len(row) != self.width:
            self._refuse(line, f"{len(row)} cells, the header names {self.width}; was the file cut off?")
        name = row[self.place["action"]].strip().lower()
        action = ACTIONS.get(name)
        if action is None:
            self._refuse(line, f"there is no action {_cut(name)!r}; known: alloc, free, free_requested, empty_cache")
        assert action is not None
        if action == Action.EMPTY_CACHE:
            self._append(action, 0, 0, 0)
            return
        key = row[self.place["id"]].strip()
        if not key:
            self._refuse(line, "no id")
        if action == Action.ALLOCATE:
            self._allocate(line, key, row)
            return
        if action == Action.FREE and key in self.waiting:
            block = self.waiting.pop(key)
        elif key in self.held:
            block = self.held.pop(key)
        else:
            known = key in self.waiting or key in self.labels
            self._refuse(
                line, f"{_cut(key)!r} is freed twice" if known else f"{_cut(key)!r} is freed and was never allocated"
            )
        if action == Action.FREE_REQUESTED:
            self.waiting[key] = block
        self._append(action, block, 0, self.stream_of[block])

    def _allocate(self, line: int, key: str, row: list[str]) -> None:
        if key in self.held or key in self.waiting:
            self._refuse(line, f"{_cut(key)!r} is allocated again before it is freed")
        size = self._integer(line, "size", row, 0)
        if not 1 <= size < LARGEST_SIZE:
            self._refuse(
                line, f"a size of {size} bytes; sizes are 1 byte to below 10^12 bytes, more than any memory holds"
            )
        stream = self._integer(line, "stream", row, 0) if "stream" in self.place else 0
        if not -(1 << 31) <= stream < 1 << 31:
            self._refuse(line, f"there is no stream {stream}")
        self.held[key] = len(self.labels)
        self._append(Action.ALLOCATE, len(self.labels), size, stream)
        self.labels.append(key)
        self.stream_of.append(stream)

    def _append(self, action: int, block: int, nbytes: int, stream: int) -> None:
        for column, value in zip(self.columns, (action, block, nbytes, stream), strict=True):
            column.append(value)

    def _integer(self, line: int, name: str, row: list[str], missing: int) -> int:
        text = row[self.place[name]].strip()
        if not text and name == "stream":
            return missing
        try:
            return int(text)
        except ValueError:
            self._refuse(line, f"{_cut(text)!r} is no whole number for {name}")
            raise

    def _refuse(self, line: int, why: str) -> None:
        raise TraceError(f"{self.where} line {line}", why)

    def requests(self) -> Requests:
        """All rows; refuses a table without an allocation."""
        if not self.labels:
            raise TraceError(self.where, "it holds no allocation; was the file cut off?")
        action, block, nbytes, stream = self.columns
        count = len(action)
        return Requests(
            np.asarray(action, np.uint8), np.asarray(block, np.int64), np.asarray(nbytes, np.int64),
            np.asarray(stream, np.int32), np.zeros(count, np.int32), np.full(count, -1, np.int64), tuple(self.labels),
            {"source": self.where},
        )  # fmt: skip


def _names(cells: list[str]) -> list[str]:
    written = [cell.strip().strip('"').lower() for cell in cells]
    return [ALIASES.get(name, name) for name in written]


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
