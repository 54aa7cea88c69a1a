"""What ``simulate_paging`` can simulate -> Accesses: a table, page numbers, a trace, a graph.

*.csv              an access a line: id[,size]; with a header, the columns ``id`` and ``size`` wherever they stand
*.npz              a trace that ``memfit predict`` or ``profile`` saved: each storage at its allocation and at its free
*.json, *.json.gz  a Graph: each operation reads its storages, then writes its results
others             a text of page numbers, decimal or 0x, apart by blanks, commas or lines; # begins a remark
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memfit.api.plan_sources import graph_in, read_json
from memfit.errors import TargetError, TraceError
from memfit.ir.graph import Graph
from memfit.ir.trace import Trace
from memfit.paging.accesses import Accesses, accesses_of
from memfit.units import SizeError, parse_bytes

ID_WORDS = ("id", "page", "object", "key")
LARGEST = 2**60
"""Bytes: no object is larger."""


@dataclass(frozen=True)
class AccessSource:
    """``accesses``, what a report calls them, ``notes`` on what they leave out."""

    accesses: Accesses
    name: str
    notes: tuple[str, ...] = ()


def accesses_from(target: Any, page_bytes: int | None) -> AccessSource:
    """The Accesses of whatever ``simulate_paging`` was given; see there for the arguments."""
    if isinstance(target, Accesses):
        return AccessSource(target, "these accesses")
    if isinstance(target, Graph):
        return _of_graph(target, "this program", page_bytes)
    if isinstance(target, Trace):
        return _of_trace(target, f"a {target.kind} trace", page_bytes)
    if not isinstance(target, str | Path):
        return _made(np.asarray(target), None, page_bytes, "these accesses")
    path, name = Path(target), str(target)
    if not path.is_file():
        hint = "write a file of accesses (.csv or a text of page numbers), a trace (.npz) or a graph (.json)"
        raise TargetError(name, "it is a folder" if path.is_dir() else "there is no such file", hint)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _of_trace(Trace.load(path), name, page_bytes)
    if suffix == ".json" or name.lower().endswith(".json.gz"):
        return _of_graph(graph_in(read_json(path), name), name, page_bytes)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if suffix == ".csv":
                return _of_table(csv.reader(file), name, page_bytes)
            return _made(np.fromiter(_numbers(file, name), np.int64), None, page_bytes, name)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(name, f"it is no text of accesses ({error})") from error


def _made(ids: Any, sizes: Any, page_bytes: int | None, name: str, notes: tuple[str, ...] = ()) -> AccessSource:
    if not len(ids):
        raise TraceError(name, "it holds no access")
    try:
        return AccessSource(accesses_of(ids, sizes, page_bytes), name, notes)
    except ValueError as error:
        raise TraceError(name, str(error)) from error


def _numbers(file: Any, name: str) -> Iterator[int]:
    for number, line in enumerate(file, 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            try:
                page = int(word, 0) if word[:2].lower() == "0x" else int(word)
            except ValueError:
                raise TraceError(name, f"line {number}: {_short(word)} is no page number, decimal or 0x") from None
            if not -(2**63) <= page < 2**63:
                raise TraceError(name, f"line {number}: page number {_short(word)} needs more than 64 bits")
            yield page


def _of_table(rows: Iterator[list[str]], name: str, page_bytes: int | None) -> AccessSource:
    number: dict[str, int] = {}
    ids: list[int] = []
    sizes: list[int] = []
    id_at, size_at, first = 0, 1, True
    for line, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        header = [cell.lower() for cell in cells] if first else []
        first = False
        named = [word for word in ID_WORDS if word in header]
        if named:
            id_at, size_at = header.index(named[0]), header.index("size") if "size" in header else len(header)
            continue
        if id_at >= len(cells) or not cells[id_at]:
            raise TraceError(name, f"line {line}: there is no id; write id[,size]")
        ids.append(number.setdefault(cells[id_at], len(number)))
        if size_at < len(cells) and cells[size_at]:
            sizes.append(_size(cells[size_at], line, name))
        if len(sizes) not in (0, len(ids)):
            raise TraceError(name, f"line {line}: a size in some lines and none in others; write it in all or in none")
    if not sizes:
        return _made(ids, None, page_bytes, name)
    return _made(ids, _agreeing(ids, sizes, number, name), page_bytes, name)


def _agreeing(ids: list[int], sizes: list[int], number: dict[str, int], name: str) -> list[int]:
    """``sizes``, when each id has one."""
    seen: dict[int, int] = {}
    for at, (page, nbytes) in enumerate(zip(ids, sizes, strict=True)):
        if seen.setdefault(page, nbytes) != nbytes:
            text = list(number)[page]
            raise TraceError(name, f"access {at + 1}: {_short(text)} has {nbytes} bytes, and {seen[page]} before")
    return sizes


def _size(text: str, line: int, name: str) -> int:
    try:
        nbytes = int(text) if text.isdecimal() else parse_bytes(text)
    except (SizeError, ValueError):
        nbytes = 0
    if not 1 <= nbytes <= LARGEST:
        raise TraceError(name, f"line {line}: {_short(text)} is no size in bytes from 1 to 2^60")
    return nbytes


def _of_graph(graph: Graph, name: str, page_bytes: int | None) -> AccessSource:
    used = [
        s for op in graph.ops for s in dict.fromkeys((*op.reads, *op.writes, *op.changes)) if graph.storages[s].nbytes
    ]
    return _made(used, [graph.storages[storage].nbytes for storage in used], page_bytes, name)


def _of_trace(trace: Trace, name: str, page_bytes: int | None) -> AccessSource:
    storage = np.asarray(trace.storage)
    if storage.ndim != 1 or storage.dtype.kind not in "iu":
        raise TraceError(name, "its events are not a column of whole numbers")
    if len(storage) and not 0 <= int(storage.min()) <= int(storage.max()) < len(trace.storages):
        raise TraceError(name, f"an event names a storage that is not there; it has {len(trace.storages)}")
    nbytes = np.array([held.nbytes for held in trace.storages], np.int64)
    used = storage[nbytes[storage] > 0] if len(storage) else storage
    note = "a trace knows the first and the last moment of a storage, no use in between; a graph (.json) knows all"
    return _made(used, nbytes[used] if len(used) else [], page_bytes, name, (note,))


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
