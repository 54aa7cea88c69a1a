"""``memfit.locality`` of traces: recorded addresses (.npy, .npz) and gathers by index, which have no loops to turn over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memfit.analyses.cache_misses import Misses, misses_of_trace
from memfit.analyses.gathers import Gather, parse_gather
from memfit.analyses.reuse import Reuse, reuse_of_trace
from memfit.api.locality_advice import WORTH, proved
from memfit.errors import NestError
from memfit.fitting.loop_search import weigh
from memfit.fitting.timed_gather import time_gathers
from memfit.machine.cache import Hierarchy
from memfit.machine.spec import Machine
from memfit.report.locality_summary import AdviceRow, LevelRow, ReasonRow

_ALL = "all"


def is_trace(text: str) -> bool:
    """Whether the pattern is a trace."""
    return text.endswith((".npy", ".npz")) or text.partition(":")[0] == "gather"


class TraceAnswer:
    """Misses, reuse and advice of a trace."""

    def __init__(self, misses: Misses, reuse: Reuse, levels: Hierarchy) -> None:
        self.misses, self.reuse = misses, reuse
        self.advice: list[AdviceRow] = []
        self.notes: list[str] = []
        self.levels = tuple(
            LevelRow(level.name, level.accesses, level.misses, level.by_array, level.write_backs)
            for level in misses.levels
        )
        self.reasons = tuple(_reason(number, misses, reuse, levels) for number in range(len(misses.levels)))


def _reason(number: int, misses: Misses, reuse: Reuse, levels: Hierarchy) -> ReasonRow:
    """Over all arrays, as a trace's distances are not kept by array."""
    level = misses.levels[number]
    cold = min(reuse.cold, level.misses)
    full = max(min(reuse.misses_at(levels.levels[number].lines), level.misses), cold)
    parts = {"cold": cold, "capacity": full - cold, "conflict": level.misses - full}
    word = max(parts, key=lambda name: parts[name]) if level.misses else ""
    return ReasonRow(
        _ALL, level.name, level.misses, cold, full - cold, level.misses - full, word, levels.levels[number].sets
    )  # fmt: skip


def analyse_trace(pattern: str, levels: Hierarchy, machine: Machine, *, advise: bool, prove: bool) -> TraceAnswer:
    """Misses, reuse distances and, of a gather, the same copies by sorted index.

    Raises:
        NestError: no such file, no addresses in it, sizes that are none.
    """
    if pattern.partition(":")[0] == "gather":
        return _gather(parse_gather(pattern), levels, machine, advise=advise, prove=prove)
    addresses, writes, arrays = read_trace(pattern)
    answer = TraceAnswer(
        misses_of_trace(addresses, levels, writes, arrays or None), reuse_of_trace(addresses, levels.line), levels
    )
    if advise:
        answer.notes.append("a recorded trace has no loops to change: its misses, reasons and curve are all there is")
    return answer


def read_trace(
    path: str,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None, Mapping[str, tuple[int, int]]]:
    """Addresses, marks of writes and byte ranges of arrays of a file.

    A .npy file holds one row of byte addresses, or two columns: address, 1 where written. A .npz file holds ``addresses``,
    maybe ``writes``, and a pair (first byte, past the last) for each array to count misses by.

    Raises:
        NestError: it cannot be read, or holds something else.
    """
    hint = "save byte addresses with numpy.save"
    if not Path(path).is_file():
        raise NestError(path, "there is no such file", hint)
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.endswith(".npy") else None)
        found = (
            {"addresses": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        )
    except (OSError, ValueError, EOFError) as error:
        raise NestError(path, f"it cannot be read: {error}", hint) from error
    if "addresses" not in found:
        raise NestError(path, f"it holds {', '.join(found) or 'nothing'} and no addresses", hint)
    addresses = found.pop("addresses")
    writes = found.pop("writes", None)
    if addresses.dtype.kind not in "iu":
        raise NestError(path, f"its addresses are of type {addresses.dtype}", "addresses are integers")
    if addresses.ndim == 2 and addresses.shape[1] == 2 and writes is None:
        addresses, writes = addresses[:, 0], addresses[:, 1]
    if not addresses.size:
        raise NestError(path, "it holds no address", hint)
    if writes is not None and writes.dtype.kind not in "iub":
        raise NestError(path, f"its marks of writes are of type {writes.dtype}", "marks are 0 and 1")
    arrays: dict[str, tuple[int, int]] = {}
    for name, pair in found.items():
        if pair.shape != (2,) or pair.dtype.kind not in "iu":
            raise NestError(path, f"{name} is no pair of addresses", "an array is (first byte, past the last)")
        arrays[name] = int(pair[0]), int(pair[1])
    return addresses, None if writes is None else (writes != 0).astype(np.uint8), arrays


def _gather(gather: Gather, levels: Hierarchy, machine: Machine, *, advise: bool, prove: bool) -> TraceAnswer:
    read = gather.indices()
    place = np.arange(gather.lookups, dtype=np.int64)
    addresses, writes = gather.trace(read, place)
    arrays = gather.arrays()
    before = misses_of_trace(addresses, levels, writes, arrays)
    answer = TraceAnswer(before, reuse_of_trace(addresses, levels.line), levels)
    if not advise:
        return answer
    order = np.argsort(read, kind="stable").astype(np.int64)
    sorted_read = read[order]
    moved, marks = gather.trace(sorted_read, order)
    after = misses_of_trace(moved, levels, marks, arrays)
    seconds = [weigh([level.misses for level in m.levels], levels.line, machine) for m in (before, after)]
    if after.levels[0].misses >= before.levels[0].misses and after.levels[-1].misses >= before.levels[-1].misses:
        answer.notes.append("copying by sorted index, each row to its place, would miss no less")
        return answer
    row = AdviceRow(
        "gather", "copy rows by sorted index, each to its place", {level.name: level.misses for level in after.levels},
        seconds[0] / max(seconds[1], 1e-12), over_bound=after.levels[0].misses / max(answer.reuse.cold, 1),
    )  # fmt: skip
    if prove:
        row = proved(row, *time_gathers(gather.rows, gather.width, [(read, place), (sorted_read, order)]))
        if row.measured_speedup is not None and row.measured_speedup < 1:
            answer.notes.append(f"{row.change}: projected to be faster and slower here, so it is no advice")
            return answer
    if row.measured_speedup is not None or row.projected_speedup > WORTH:
        answer.advice.append(row)
    return answer
