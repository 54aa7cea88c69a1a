"""Recording -> Trace: the raw events of a run become storages with a category and ops with a phase.

What a storage is for is known where somebody looked (``KnownStorage``: parameters, gradients, ...). For the rest its
life decides, which needs no knowledge of the framework::

    born in     dies                          category
    build       in build                      temporaries
    build       later                         buffers (tensors that the program keeps)
    between     after it                      inputs (a batch that was loaded)
    any phase   inside the op that made it    temporaries
    forward     later than that op            activations
    backward    in backward                   temporaries
    backward    later                         gradients
    optimizer   in optimizer                  temporaries
    optimizer   later                         optimizer state

Operations are watched on some steps only (watching costs more than counting): a step that was not watched takes its ops
from one that was and that allocated and freed the same sizes in the same order, or nearly: then as far as the two agree
from their beginning and from their end. Cost: O(events + operations).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from memfit.ir.recording import KnownStorage, Recording
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage
from memfit.observe.operations import Words, shown_operations
from memfit.observe.phases import Part, marked_parts, refined_parts


def trace_of(
    recording: Recording, known: Iterable[KnownStorage], words: Words, meta: Mapping[str, Any] | None = None
) -> Trace:
    """The measured Trace of a recording.

    Args:
        recording: the raw events.
        known: storages whose use is known; of several rows for one block the first holds. Those not from the recorded
            allocator live through the whole trace.
        words: what the framework says of modules, ops and frames.
        meta: goes into the trace.
    """
    shown = shown_operations(recording, words)
    marked = marked_parts(recording)
    lines = [next(filter(None, map(words.place, stack)), "") for stack in recording.stacks]
    operation, stack, twin = _labelled(recording, marked)
    parts = refined_parts(marked, operation, shown)
    known_rows = list(known)
    facts: dict[int, KnownStorage] = {}
    for fact in known_rows:
        facts.setdefault(fact.block, fact)

    ops: list[TraceOp] = []
    numbers: dict[tuple[Any, ...], int] = {}
    op_of = np.empty(len(recording), np.int64)
    for part in parts:
        current: int | None = None
        for event in range(part.start, part.stop):
            row = int(operation[event])
            if row >= 0:
                what = shown[row]
                key: tuple[Any, ...] = (part.step, part.phase, what.row)
                current = _number(numbers, key, ops, TraceOp(what.name, part.step, part.phase, what.module, what.line))
            elif recording.delta[event] > 0 or current is None:  # made by Python itself, between ops
                line = lines[stack[event]] if stack[event] >= 0 else ""
                key = (part.step, part.phase, "outside", line)
                current = _number(numbers, key, ops, TraceOp("python", part.step, part.phase, "", line))
            op_of[event] = current

    blocks, storage = np.unique(recording.block, return_inverse=True)
    rows = np.array([one.row for one in shown], np.int64)[operation] if shown else np.full(len(recording), -1)
    rows = np.where(operation >= 0, rows, -1)
    for event in np.nonzero((twin >= 0) & (recording.delta > 0))[0].tolist():  # what its twin is for, it is for too
        like = facts.get(int(recording.block[twin[event]]))
        if like is not None:
            facts.setdefault(int(recording.block[event]), like)
    storages = _storages(recording, parts, blocks, storage, op_of, rows, facts)
    outside = [fact for fact in known_rows if fact.block < 0]
    if outside:
        first = _number(numbers, ("outside",), ops, TraceOp("outside", -1, "build"))
        extra = np.arange(len(outside)) + len(blocks)
        storages += [TraceStorage(row.nbytes, row.category, first, row.shape, row.dtype, row.label) for row in outside]
        storage = np.concatenate([extra, storage])
        op_of = np.concatenate([np.full(len(outside), first), op_of])
        delta = np.concatenate([np.array([row.nbytes for row in outside], np.int64), recording.delta])
        nanoseconds = np.concatenate([np.repeat(recording.nanoseconds[:1], len(outside)), recording.nanoseconds])
        if len(nanoseconds) < len(delta):
            nanoseconds = np.zeros(len(delta), np.int64)
    else:
        delta, nanoseconds = recording.delta, recording.nanoseconds
    seconds = (nanoseconds - nanoseconds[0]) * 1e-9 if len(nanoseconds) else np.zeros(0)
    return Trace(
        "measured", tuple(ops), tuple(storages), storage.astype(np.int64), delta, op_of, seconds,
        {**(meta or {}), "source": recording.source, "events": len(recording), "outside_allocator": len(outside)},
    )  # fmt: skip


def _number(numbers: dict[tuple[Any, ...], int], key: tuple[Any, ...], ops: list[TraceOp], op: TraceOp) -> int:
    if key not in numbers:
        numbers[key] = len(ops)
        ops.append(op)
    return numbers[key]


def _labelled(recording: Recording, parts: list[Part]) -> tuple[Any, Any, Any]:
    """(operation, stack, twin) per event: steps that were not watched borrow from one with the same events."""
    operation, stack = recording.operation.copy(), recording.stack.copy()
    twin = np.full(len(recording), -1)
    spans: dict[int, tuple[int, int]] = {}
    for part in parts:
        start, _ = spans.get(part.step, (part.start, 0))
        spans[part.step] = start, part.stop
    bare: list[tuple[int, int]] = []
    watched: list[tuple[int, int]] = []
    for step, (start, stop) in spans.items():
        if step < 0:
            continue
        if (operation[start:stop] >= 0).any():
            watched.append((start, stop))
        else:
            bare.append((start, stop))
    for start, stop in bare:
        for to, source, length in _alike(recording.delta, (start, stop), watched):
            operation[to : to + length] = recording.operation[source : source + length]
            stack[to : to + length] = recording.stack[source : source + length]
            twin[to : to + length] = np.arange(source, source + length)
    return operation, stack, twin


def _alike(delta: Any, span: tuple[int, int], watched: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(start in the span, start in a watched span, length) of what the most alike of them has in common with it."""
    best: list[tuple[int, int, int]] = []
    start, stop = span
    for begin, end in watched:
        shorter = min(stop - start, end - begin)
        differ = np.nonzero(delta[start : start + shorter] != delta[begin : begin + shorter])[0]
        head = int(differ[0]) if len(differ) else shorter
        rest = shorter - head
        differ = np.nonzero(delta[stop - rest : stop] != delta[end - rest : end])[0]
        tail = rest - 1 - int(differ[-1]) if len(differ) else rest
        found = [(start, begin, head), (stop - tail, end - tail, tail)]
        if head + tail > sum(length for *_, length in best):
            best = found
    return best


def _storages(
    recording: Recording, parts: list[Part], blocks: Any, storage: Any, op_of: Any, rows: Any,
    facts: Mapping[int, KnownStorage],
) -> list[TraceStorage]:  # fmt: skip
    count = len(blocks)
    birth, death = np.full(count, -1), np.full(count, len(recording))
    events = np.arange(len(recording))
    born = recording.delta > 0
    birth[storage[born]] = events[born]
    death[storage[~born]] = events[~born]
    part_of = np.searchsorted([part.start for part in parts], birth, side="right") - 1
    result = []
    for index in range(count):
        event, end = int(birth[index]), int(death[index])
        nbytes, op = int(recording.delta[event]), int(op_of[event])
        fact = facts.get(int(blocks[index]))
        if fact is not None:
            result.append(TraceStorage(nbytes, fact.category, op, fact.shape, fact.dtype, fact.label))
            continue
        inside = end < len(recording) and int(rows[event]) >= 0 and int(rows[end]) == int(rows[event])
        result.append(TraceStorage(nbytes, category_of(parts[int(part_of[index])], end, inside), op))
    return result


def category_of(part: Part, death: int, inside_op: bool) -> Category:
    """What a storage of unknown use is for, by the table of the module text.

    ``part``: where it is born; ``death``: the event that frees it; ``inside_op``: both in one op.
    """
    if inside_op:
        return Category.TEMPORARIES
    if part.phase == "forward":
        return Category.ACTIVATIONS
    if death < part.stop:
        return Category.TEMPORARIES
    return {
        "build": Category.BUFFERS,
        "between": Category.INPUTS,
        "backward": Category.GRADIENTS,
        "optimizer": Category.OPTIMIZER_STATE,
    }.get(part.phase, Category.TEMPORARIES)
