"""Tensors larger or more than they need be: ``copy`` (a clone that neither side writes after), ``float64`` (by accident)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from memfit.frameworks.torch.lint.finding import LEAST, Finding, Seen, is_own
from memfit.ir.trace import Category, Trace

_DOUBLE = "float64"


def copies(seen: Seen) -> list[Finding]:
    """Clones of a whole tensor in the same layout, where source and copy stay as they are until one of them dies.

    Without the copy, the source lives as long as both did. Copies made by packages are theirs.
    """
    tape, trace = seen.watch.watched, seen.trace
    death = {int(index): op for index, delta, op in zip(trace.storage, trace.delta, trace.op, strict=True) if delta < 0}
    by_line: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for op, source, copy in tape.copies:
        where = trace.ops[op]
        untouched = tape.written.get(source, -1) <= op and tape.written.get(copy, -1) <= op
        if where.step == seen.last and untouched and copy in death and is_own(where.line):
            by_line[where.line].append((source, copy))
    findings = []
    for line, pairs in by_line.items():
        # The same line of every step, so that the whole trace is as it would be.
        everywhere = [
            (s, c) for op, s, c in tape.copies if trace.ops[op].line == line and tape.written.get(c, -1) <= op
        ]
        held = sum(trace.storages[copy].nbytes for _, copy in pairs)
        what = f"{len(pairs)} copies that neither side writes afterwards" if len(pairs) > 1 else (
            "a copy, and neither side is written afterwards")  # fmt: skip
        without = _shared(trace, everywhere)
        module = next(trace.ops[op].module for op, _, _ in tape.copies if trace.ops[op].line == line)
        findings.append(Finding("copy", line, what, "use the tensor itself", module, held, without=without))
    return findings


def _shared(trace: Trace, pairs: list[tuple[int, int]]) -> Trace:
    """The trace where each copy is its source: the copy is never born, the source dies when the later of the two does."""
    delta = trace.delta.copy()
    death = {
        int(index): at for at, (index, change) in enumerate(zip(trace.storage, trace.delta, strict=True)) if change < 0
    }
    moved: dict[int, int] = {}
    for source, copy in pairs:
        delta[trace.storage == copy] = 0
        if copy in death and source in death:
            moved[source] = max(moved.get(source, death[source]), death[copy])
    for source, at in moved.items():
        if at != death[source]:
            delta[at] += trace.delta[death[source]]
            delta[death[source]] = 0
    return Trace(trace.kind, trace.ops, trace.storages, trace.storage, delta, trace.op, None, trace.meta)


def doubles(seen: Seen) -> list[Finding]:
    """Double precision in a model of another precision: half of it would do. The line is the first op that makes some."""
    trace = seen.trace
    parameters = [storage for storage in trace.storages if storage.category is Category.PARAMETERS]
    of_double = sum(storage.nbytes for storage in parameters if storage.dtype == _DOUBLE)
    if not parameters or 2 * of_double > sum(storage.nbytes for storage in parameters):
        return []
    last = [
        index for index, storage in enumerate(trace.storages)
        if storage.dtype == _DOUBLE and storage.op >= 0 and trace.ops[storage.op].phase == "forward"
        and trace.ops[storage.op].step == seen.last and storage.nbytes >= LEAST
    ]  # fmt: skip
    if not last:
        return []
    first = trace.ops[trace.storages[last[0]].op]
    held = sum(trace.storages[index].nbytes for index in last) // 2
    what = f"float64 from here on ({first.name.removeprefix('aten.').partition('.')[0]}), in a model of other precision"
    fix = "cast the operand that is float64, often from NumPy, to the model's precision: .to(x.dtype)"
    line = first.line if is_own(first.line) else seen.own_line(())
    return [Finding("float64", line, what, fix, first.module, held, without=_halved(trace))]


def _halved(trace: Trace) -> Trace:
    """The trace with doubles, parameters aside, of half their size."""
    storages = tuple(
        replace(storage, nbytes=storage.nbytes // 2)
        if storage.dtype == _DOUBLE and storage.category is not Category.PARAMETERS else storage
        for storage in trace.storages
    )  # fmt: skip
    size = np.array([storage.nbytes for storage in storages], dtype=np.int64)
    delta = np.sign(trace.delta) * size[trace.storage] if len(size) else trace.delta
    return Trace(trace.kind, trace.ops, storages, trace.storage, delta, trace.op, None, trace.meta)
