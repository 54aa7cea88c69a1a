"""Tables of buffers as CSV, in the column format of MiniMalloc (https://github.com/google/minimalloc): both ways.

::

    id,lower,upper,size                  one row a buffer; its lifetime is [lower, upper); bytes
    b1,0,3,4
    b2,3,9,4

Other names of columns: ``buffer`` or ``buffer_id`` for id, ``begin`` or ``start`` for lower, ``end`` for an upper that is
the last instant still in use. Optional columns of MiniMalloc: ``alignment``; ``offset`` (a pin; -1 or empty: free);
``hint`` (kept, not used); ``gaps``, instants in which the buffer is not in use: ``a-b``, or ``a-b@low:high`` where only
its bytes [low, high) are, several separated by spaces. Columns of memfit: ``memory`` (the name of the one it must lie in;
empty: any), ``same`` (ids of buffers that lie at its offset), ``in_place`` (ids of buffers that it may take over),
``upper_size`` (of a dynamic shape: planned with instead of ``size``), ``expected`` (bytes usually used), ``label``.

A capacity may stand in the name of the file: ``A.1048576.csv``. What is wrong in a table is one ProblemError that names
the file and the line. Cost: about 2 us a row.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from memfit.errors import ProblemError
from memfit.planners.problem import ANY_MEMORY, FREE_OFFSET, Ints, Memory, Piece, Placement, Problem

ALIASES = {"buffer": "id", "buffer_id": "id", "begin": "lower", "start": "lower", "end": "upper"}
REQUIRED = ("id", "lower", "upper", "size")
OPTIONAL = ("alignment", "hint", "gaps", "offset", "memory", "same", "in_place", "upper_size", "expected", "label")
LARGEST = 2**62
LARGEST_SIZE = 10**12  # bytes of one buffer; a table beyond it is taken for one in another unit
"""No instant, and no sum of sizes in bytes, may be larger: offsets are signed numbers of 64 bits."""

_CAPACITY = re.compile(r"\.(\d+)\.csv$", re.IGNORECASE)
_GAP = re.compile(r"(-?\d+)-(-?\d+)(?:@(\d+):(\d+))?")
_SHOWN = 60


def read_table(path: str | Path) -> Problem:
    """The Problem of a CSV file; its capacity is that in the file's name, if there is one.

    Raises:
        ProblemError: there is no such file, it is no such table, or a row of it cannot be planned.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ProblemError(str(path), error.strerror or str(error), "name a CSV file that can be read") from error
    except UnicodeDecodeError as error:
        raise ProblemError(
            str(path),
            f"byte {error.start} of it is no text",
            "a table is CSV text with a header such as id,lower,upper,size",
        ) from error
    named = _CAPACITY.search(str(path))
    capacity = int(named.group(1)) if named else 0
    return parse_table(text, str(path), capacity if 0 < capacity <= LARGEST else None)


def parse_table(text: str, where: str = "table", capacity: int | None = None) -> Problem:
    """The Problem of a table's text. ``where``: what errors call it; ``capacity``: bytes of its only memory.

    Raises:
        ProblemError: it is no such table, or a row of it cannot be planned.
    """
    table = _Table(text, where)
    ids = table.ids()
    count = len(ids)
    lower, upper = table.integers("lower", 0), table.integers("upper", 0) + int(table.inclusive)
    written = table.integers("size", 0)
    table.check(np.abs(lower) > LARGEST, "lower", "is further from zero than 2^62 instants")
    table.check(np.abs(upper) > LARGEST, "upper", "is further from zero than 2^62 instants")
    table.check_lifetimes(lower, upper)
    table.check(written <= 0, "size", "is no size: a buffer has at least 1 byte")
    table.check(
        written >= LARGEST_SIZE,
        "size",
        "is 10^12 bytes or more, larger than any memory: write all sizes in a larger unit",
    )
    size, expected = _dynamic(table, written)
    alignment = table.integers("alignment", 1)
    table.check(alignment < 1, "alignment", "is no alignment: write 1 or more bytes")
    total = int(size.sum(dtype=np.float64)) + count * int(alignment.max())
    if total > LARGEST:
        raise ProblemError(
            where,
            f"its sizes and alignments sum to about {total:.3g} bytes, more than 2^62",
            "write sizes in a larger unit",
        )
    offset = table.integers("offset", FREE_OFFSET)
    table.check(offset < FREE_OFFSET, "offset", "is no offset: write 0 or more bytes, or -1 for a buffer that is free")
    table.check(offset > LARGEST, "offset", "is more than 2^62 bytes")
    table.check((offset > 0) & (offset % alignment != 0), "offset", "is no multiple of the buffer's alignment")
    memories, memory = _memories(table, count, capacity)
    row_of = {name: row for row, name in enumerate(ids)} if table.has("same", "in_place") else {}
    meta: dict[str, Any] = {"source": where}
    if table.ignored:
        meta["ignored_columns"] = table.ignored
    if table.unended:
        meta["unended"] = True
    if table.has("hint"):
        meta["hint"] = table.integers("hint", -1)
    return Problem(
        ids, lower, upper, size, alignment, offset, memory, _pieces(table, lower, upper, size),
        _partners(table, "same", row_of), _partners(table, "in_place", row_of), memories, expected,
        table.column("label") or (), meta,
    )  # fmt: skip


class _Table:
    """The cells of a table by column, and its errors with their lines."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.unended = "\n" in text.strip() and not text.endswith(("\n", "\r"))
        try:
            rows = [row for row in self._reader() if row]
        except csv.Error as error:
            raise ProblemError(where, f"it is no CSV ({error})") from error
        if not rows:
            raise ProblemError(where, "it is empty", "write a header such as id,lower,upper,size and a row a buffer")
        self.names, self.inclusive, self.ignored = self._header(rows[0])
        del rows[0]
        if not rows:
            raise ProblemError(where, "it has a header and no buffer", "was the file cut off?")
        self.count = len(rows)
        if set(map(len, rows)) != {len(self.names)}:
            self._refuse_width(rows)
        self.columns = dict(zip(self.names, zip(*rows, strict=True), strict=True))

    def _reader(self) -> Any:
        return csv.reader(io.StringIO(self.text, newline=""), skipinitialspace=True, strict=True)

    def _header(self, cells: list[str]) -> tuple[list[str], bool, tuple[str, ...]]:
        """Names of the columns, whether upper is inclusive, and the columns that mean nothing here."""
        written = [cell.strip().lower() for cell in cells]
        names = [ALIASES.get(name, name) for name in written]
        known = (*REQUIRED, *OPTIONAL)
        missing = [name for name in REQUIRED if name not in names]
        strange = [name for name in names if name not in known]
        spelled = {name: difflib.get_close_matches(name, (*known, *ALIASES), 1, 0.7) for name in strange}
        if len(missing) == len(REQUIRED):
            raise ProblemError(
                f"{self.where} line 1", f"it is no header of a table of buffers: {_cut(','.join(cells))}",
                "the first line names the columns: id,lower,upper,size",
            )  # fmt: skip
        for name, close in spelled.items():
            if close:
                hint = f"did you mean {close[0]!r}?"
                raise ProblemError(f"{self.where} line 1", f"there is no column {_cut(name)!r}", hint)
        if missing:
            has = f"it has {_cut(','.join(cells))}"
            raise ProblemError(f"{self.where} line 1", f"no column {' or '.join(map(repr, missing))}", has)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            both = " and ".join(repr(w) for w, name in zip(written, names, strict=True) if name == twice)
            raise ProblemError(f"{self.where} line 1", f"two columns mean {twice!r}: {both}", "keep one of them")
        return names, "end" in written, tuple(strange)

    def _refuse_width(self, rows: list[list[str]]) -> None:
        row = next(i for i, cells in enumerate(rows) if len(cells) != len(self.names))
        last = row == len(rows) - 1 and len(rows[row]) < len(self.names)
        raise self.error(
            row, f"it has {len(rows[row])} fields, the header has {len(self.names)}",
            "the file ends in the middle of a row: was it cut off?" if last else "each row has one field a column",
        )  # fmt: skip

    def has(self, *names: str) -> bool:
        """Whether any of the columns is there."""
        return any(name in self.columns for name in names)

    def column(self, name: str) -> tuple[str, ...] | None:
        """The cells of a column, or None."""
        return self.columns.get(name)

    def error(self, row: int, why: str, hint: str = "") -> ProblemError:
        """An error about a row (0: the first buffer), with its line in the file."""
        return ProblemError(f"{self.where} line {self.line(row)}", why, hint)

    def line(self, row: int) -> int:
        """The line of the file at which a row ends; looked up only for an error."""
        reader = self._reader()
        lines = [int(reader.line_num) for cells in reader if cells]
        return lines[row + 1]

    def ids(self) -> tuple[str, ...]:
        """The ids, each one there and unlike the others."""
        ids = self.columns["id"]
        if "" in ids:
            raise self.error(ids.index(""), "it has no id")
        if len(set(ids)) != len(ids):
            first: dict[str, int] = {}
            for row, name in enumerate(ids):
                if first.setdefault(name, row) != row:
                    raise self.error(row, f"id {_cut(name)!r} stands in line {self.line(first[name])} already")
        return ids

    def integers(self, name: str, default: int) -> Ints:
        """A column of whole numbers; ``default`` where the column or a cell is empty (not in required columns)."""
        cells = self.columns.get(name)
        if cells is None:
            return np.full(self.count, default, dtype=np.int64)
        joined = "".join(cells)
        if joined.isascii() and "_" not in joined:
            try:
                if name in REQUIRED or "" not in cells:
                    return np.fromiter(map(int, cells), np.int64, self.count)
                return np.fromiter((int(cell) if cell.strip() else default for cell in cells), np.int64, self.count)
            except (ValueError, OverflowError):
                pass
        for row, cell in enumerate(cells):
            if cell.strip() or name in REQUIRED:
                self._check_integer(row, name, cell.strip())
        return np.array([int(cell) if cell.strip() else default for cell in cells], dtype=np.int64)

    def _check_integer(self, row: int, name: str, cell: str) -> None:
        if not re.fullmatch(r"[+-]?[0-9]+", cell):
            raise self.error(row, f"{name} {_cut(cell)!r} is no whole number")
        if len(cell) > 20 or not -(2**63) <= int(cell) < 2**63:
            raise self.error(row, f"{name} {_cut(cell)} does not fit 64 bits", "write it in a larger unit")

    def check(self, wrong: Any, name: str, why: str) -> None:
        """Refuse the first row where ``wrong``, naming what stands in its column ``name``."""
        if wrong.any():
            row = int(np.argmax(wrong))
            raise self.error(row, f"{name} {_cut(self.columns[name][row].strip())} {why}")

    def check_lifetimes(self, lower: Ints, upper: Ints) -> None:
        """Refuse a lifetime that is reversed or empty."""
        wrong = upper <= lower
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        first, last = int(lower[row]), int(upper[row])
        if self.inclusive:
            raise self.error(
                row, f"its end {last - 1} is before its start {first}", "an end is the last instant in use"
            )
        kind = "empty" if first == last else "reversed"
        raise self.error(
            row, f"its lifetime [{first}, {last}) is {kind}", "upper is the first instant no longer in use"
        )


def _dynamic(table: _Table, size: Ints) -> tuple[Ints, Ints | None]:
    """The sizes to plan with, and what is usually used of them."""
    if not table.has("upper_size", "expected"):
        return size, None
    planned = table.integers("upper_size", -1)
    planned = np.where(planned == -1, size, planned)
    table.check(planned < size, "upper_size" if table.has("upper_size") else "size", "is below the buffer's size")
    expected = table.integers("expected", -1)
    expected = np.where(expected == -1, size, expected)
    if table.has("expected"):
        table.check((expected < 0) | (expected > planned), "expected", "is not within 0 and the buffer's largest size")
    return planned, expected


def _memories(table: _Table, count: int, capacity: int | None) -> tuple[tuple[Memory, ...], Ints]:
    """The memories in the order in which they are named, and the index of each buffer's."""
    cells = table.column("memory")
    index: dict[str, int] = {}
    if cells is None or not any(cells):
        return (Memory("memory", capacity),), np.full(count, ANY_MEMORY, dtype=np.int64)
    chosen = [index.setdefault(cell.strip(), len(index)) if cell.strip() else ANY_MEMORY for cell in cells]
    only = capacity if len(index) == 1 else None
    return tuple(Memory(name, only) for name in index), np.array(chosen, dtype=np.int64)


def _partners(table: _Table, name: str, row_of: dict[str, int]) -> tuple[tuple[int, int], ...]:
    """The pairs (other, this) of a column that names other buffers."""
    found = []
    for row, cell in enumerate(table.column(name) or ()):
        for other in [cell] if cell in row_of else cell.split():
            if other not in row_of:
                raise table.error(row, f"{name} names {_cut(other)!r}, and there is no buffer of that id")
            if row_of[other] == row:
                raise table.error(row, f"{name} names the buffer itself")
            found.append((row_of[other], row))
    return tuple(found)


def _pieces(table: _Table, lower: Ints, upper: Ints, size: Ints) -> dict[int, tuple[Piece, ...]]:
    """The pieces of the buffers that have gaps."""
    return {
        row: _pieces_between(table, row, cell, int(lower[row]), int(upper[row]), int(size[row]))
        for row, cell in enumerate(table.column("gaps") or ())
        if cell.strip()
    }


def _pieces_between(table: _Table, row: int, cell: str, lower: int, upper: int, size: int) -> tuple[Piece, ...]:
    gaps = []
    for text in cell.split():
        match = _GAP.fullmatch(text)
        if match is None:
            raise table.error(row, f"{_cut(text)!r} is no gap", "write first-after or first-after@low:high")
        begin, end = int(match.group(1)), int(match.group(2)) + int(table.inclusive)
        low, high = (int(match.group(3)), int(match.group(4))) if match.group(3) else (0, 0)
        if not lower <= begin < end <= upper:
            raise table.error(row, f"gap {_cut(text)} is reversed, empty or outside the lifetime [{lower}, {upper})")
        if match.group(3) and not 0 <= low < high <= size:
            raise table.error(row, f"gap {_cut(text)} keeps bytes that are not within the buffer's {size}")
        gaps.append((begin, end, low, high))
    pieces, at = [], lower
    for begin, end, low, high in sorted(gaps):
        if begin < at:
            raise table.error(row, f"its gaps overlap at {begin}")
        if begin > at:
            pieces.append(Piece(at, begin, 0, size))
        if high:
            pieces.append(Piece(begin, end, low, high))
        at = end
    if at < upper:
        pieces.append(Piece(at, upper, 0, size))
    if not pieces:
        raise table.error(row, "its gaps leave no instant at which it is in use")
    return tuple(pieces)


def table_text(problem: Problem, placement: Placement | None = None) -> str:
    """``problem`` as CSV, with an offset column where there is a placement, or pins. ``parse_table`` reads it."""
    columns: dict[str, Any] = {"id": problem.ids}
    columns |= {name: getattr(problem, name).tolist() for name in ("lower", "upper", "size")}
    if (problem.alignment != 1).any():
        columns["alignment"] = problem.alignment.tolist()
    if "hint" in problem.meta:
        columns["hint"] = problem.meta["hint"].tolist()
    gaps = [" ".join(_gaps_of(problem, i)) if i in problem.pieces else "" for i in range(len(problem))]
    if any(gaps):
        columns["gaps"] = gaps
    chosen = problem.memory if placement is None or len(problem.memories) == 1 else placement.memory
    if (chosen != ANY_MEMORY).any():
        columns["memory"] = [problem.memories[m].name if m != ANY_MEMORY else "" for m in chosen.tolist()]
    for name, pairs in (("same", problem.same), ("in_place", problem.in_place)):
        if pairs:
            others: list[list[str]] = [[] for _ in problem.ids]
            for a, b in pairs:
                others[b].append(problem.ids[a])
            columns[name] = [" ".join(row) for row in others]
    if problem.expected is not None:
        columns["expected"] = problem.expected.tolist()
    if any(problem.labels):
        columns["label"] = problem.labels
    if placement is not None:
        columns["offset"] = placement.offset.tolist()
    elif (problem.offset != FREE_OFFSET).any():
        columns["offset"] = problem.offset.tolist()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def _gaps_of(problem: Problem, buffer: int) -> Iterator[str]:
    """The gaps of a buffer as text: where it has no piece, or one that is not the whole buffer."""
    at, size = int(problem.lower[buffer]), int(problem.size[buffer])
    for piece in problem.pieces[buffer]:
        if piece.lower > at:
            yield f"{at}-{piece.lower}"
        if (piece.low, piece.high) != (0, size):
            yield f"{piece.lower}-{piece.upper}@{piece.low}:{piece.high}"
        at = piece.upper
    if at < problem.upper[buffer]:
        yield f"{at}-{problem.upper[buffer]}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
