"""Record a run of torch steps on a CUDA device: the caching allocator's own history, read from its snapshot.

The history says when each block was handed out and freed, with the Python stack; marks and the census are joined to it
by time, which the host takes for both. Sizes are the allocator's (multiples of 512 bytes). The stack stands for the
operation: allocations of one stack, one after another, are shown as one op.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from memfit.errors import DeviceError
from memfit.frameworks.torch.known_storages import Census, named_parameters
from memfit.frameworks.torch.operation_words import module_names
from memfit.frameworks.torch.profiler_events import ProfilerHook
from memfit.frameworks.torch.run_recorder import RecordedRun, step_figures
from memfit.frameworks.torch.steps import run_step
from memfit.ir.recording import KnownStorage, PythonFrame, Recording, Scope
from memfit.ir.step import Step
from memfit.ir.trace import Category

_ENTRIES = 10_000_000


def record_cuda_steps(
    build: Callable[[], Step], steps: int, *, device: str, report: Callable[[int], None]
) -> RecordedRun:
    """Build a step, run it ``steps`` times on ``device``, and record all of it.

    Raises:
        DeviceError: the step that was built has no tensor there.
    """
    place = torch.device(device)
    index = torch.cuda.current_device() if place.index is None else place.index
    marks: list[tuple[str, int]] = []
    tickets: list[tuple[int, int]] = []

    def ticket(address: int) -> int:
        tickets.append((address, time.time_ns() // 1000))
        return len(tickets) - 1

    def mark(text: str) -> None:
        marks.append((text, time.time_ns() // 1000))

    census, modules, seconds = Census(ticket, "cuda"), {}, []
    before = ProfilerHook().resident()
    torch.cuda.reset_peak_memory_stats(index)
    torch.cuda.memory._record_memory_history("all", context="alloc", stacks="python", max_entries=_ENTRIES)
    try:
        mark("-1 build")
        step = build()
        named = named_parameters(step.model, step.optimizer)
        _check_placed(named, step, device)
        modules.update(module_names(step.model))
        census.take_model(step.model)
        census.take(named, Category.PARAMETERS)
        census.take_inputs(step.inputs)
        labels = {id(parameter): name for name, parameter in named}
        for number in range(steps):
            report(number)
            began = time.process_time()

            def phase(text: str, number: int = number) -> None:
                mark(f"{number} {text}")
                if text == "optimizer":
                    census.take_gradients(named)

            run_step(step, phase)
            census.take_optimizer(step.optimizer, labels)
            census.take_gradients(named)
            torch.cuda.synchronize(index)
            seconds.append(time.process_time() - began)
            mark(f"{number} end")
        history = torch.cuda.memory._snapshot(index)["device_traces"][index]
    finally:
        torch.cuda.memory._record_memory_history(None)
    recording, lives = recording_of(history, marks)
    peaks, ends = step_figures(recording, steps)
    return RecordedRun(
        recording, resolved(census.rows, tickets, lives), modules, peaks, ends, seconds, before,
        ProfilerHook().resident(), 0, torch.cuda.max_memory_allocated(index),
        reserved=torch.cuda.max_memory_reserved(index),
    )  # fmt: skip


def _check_placed(named: Sequence[tuple[str, Any]], step: Step, device: str) -> None:
    kinds = {parameter.device.type for _, parameter in named}
    if kinds and "cuda" not in kinds:
        raise DeviceError(device, f"the model is on {', '.join(sorted(kinds))}; build it on {device} in the target")


def recording_of(
    history: Iterable[Mapping[str, Any]], marks: Sequence[tuple[str, int]]
) -> tuple[Recording, dict[int, list[tuple[int, int, int]]]]:
    """The Recording of a snapshot's history, and the lives (from, to in microseconds, block) of each address.

    ``marks``: texts with the time at which they were set. Frees of blocks older than the history are left out.
    """
    alive: dict[int, int] = {}
    sizes: list[int] = []
    lives: dict[int, list[tuple[int, int, int]]] = {}
    events: list[tuple[int, int, int, int]] = []
    stacks: dict[tuple[PythonFrame, ...], int] = {}
    operations: list[tuple[str, int, int]] = []
    for entry in history:
        action, address, when = entry["action"], int(entry["addr"]), int(entry.get("time_us", 0))
        if action == "alloc":
            stack = tuple(PythonFrame(f["filename"], int(f["line"]), f["name"]) for f in entry.get("frames", ()))
            row = stacks.setdefault(stack, len(stacks))
            if not operations or operations[-1][1] != row:
                operations.append((stack[0].function if stack else "cuda", row, when))
            block = alive[address] = len(sizes)
            sizes.append(int(entry["size"]))
            events.append((block, sizes[block], len(operations) - 1, when))
            lives.setdefault(address, []).append((when, 1 << 62, block))
        elif action == "free_completed" and address in alive:
            block = alive.pop(address)
            events.append((block, -sizes[block], -1, when))
            begin, _, _ = lives[address][-1]
            lives[address][-1] = begin, when, block
    column = np.array(events, np.int64).reshape(-1, 4)
    rows = np.array([row[1:] for row in operations], np.int64).reshape(-1, 2)
    none = np.full(len(rows), -1, np.int64)
    moments = np.array([when for _, when in marks], np.int64)
    return Recording(
        block=column[:, 0].copy(), delta=column[:, 1].copy(), operation=column[:, 2].astype(np.int32),
        nanoseconds=column[:, 3] * 1000, stack=np.full(len(column), -1, np.int32),
        name=tuple(row[0] for row in operations), parent=none.astype(np.int32),
        scope=np.full(len(rows), int(Scope.FUNCTION), np.int32), sequence=none, thread=none, forward_thread=none,
        module=none * 0, operation_stack=rows[:, 0].astype(np.int32), operation_nanoseconds=rows[:, 1] * 1000,
        mark_text=tuple(text for text, _ in marks), mark_event=np.searchsorted(column[:, 3], moments),
        mark_operation=np.searchsorted(rows[:, 1], moments), mark_nanoseconds=moments * 1000, stacks=tuple(stacks),
        source="snapshot",
    ), lives  # fmt: skip


def resolved(
    rows: Iterable[KnownStorage], tickets: Sequence[tuple[int, int]], lives: Mapping[int, list[tuple[int, int, int]]]
) -> list[KnownStorage]:
    """Rows with their tickets (address, time) exchanged for the blocks that lived there then."""
    found: dict[int, KnownStorage] = {}
    for row in rows:
        address, when = tickets[row.block]
        block = next((number for begin, end, number in lives.get(address, ()) if begin <= when < end), -1)
        if block >= 0:
            found.setdefault(block, replace(row, block=block))
    return list(found.values())
