"""What ``replay`` can replay -> Requests: a trace, a snapshot, a table of events or of lifetimes, a graph, a program.

*.npz                    a trace that ``memfit predict`` or ``profile`` saved (--save-trace)
*.csv                    events (action,id,size), or lifetimes in MiniMalloc's columns (id,lower,upper,size)
*.json, *.json.gz        a Graph, in its own order
*.pickle, *.pkl, others  a torch.cuda.memory snapshot; it carries the addresses that the real allocator chose
file.py:function         a target: the predicted trace of its steps
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memfit.allocators.event_table import is_event_table, read_event_table
from memfit.allocators.snapshots import Snapshot, read_snapshot
from memfit.api.plan_sources import problem_from
from memfit.errors import TargetError, TraceError
from memfit.ir.graph import Graph
from memfit.ir.requests import Action, Requests, requests_of_trace
from memfit.ir.step import Step
from memfit.ir.trace import Trace
from memfit.planners.problem import Problem

Say = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class Source:
    """``requests``, what a report calls them, ``kind``: projected, measured or recorded; ``snapshot``: where they are one."""

    requests: Requests
    name: str
    kind: str
    notes: tuple[str, ...] = ()
    snapshot: Snapshot | None = None


def requests_from(
    target: Any, *, settings: Mapping[str, Any] | None, steps: int, accelerator: bool, say: Say
) -> Source:
    """The Requests of whatever ``replay`` was given; see ``memfit.api.replaying.replay`` for the arguments."""
    if isinstance(target, Requests):
        return Source(target, "these requests", "recorded")
    if isinstance(target, Trace):
        return _of_trace(target, f"a {target.kind} trace", accelerator)
    if isinstance(target, Graph | Problem):
        problem = problem_from(target, settings=None, alignment=1, constants=True, source=None, say=say).problem
        return Source(requests_of_problem(problem), "this program", "projected", _ignored(problem))
    if isinstance(target, str | Path) and ":" not in Path(target).name:
        if settings:
            raise TargetError(
                str(target), "a file takes no settings", "--set belongs to a target such as file.py:function"
            )
        say("reading the file", None, None)
        return _file(Path(target), accelerator, say)
    return _program(target, settings, steps, accelerator, say)


def requests_of_problem(problem: Problem) -> Requests:
    """Requests that follow lifetimes: at each instant first the frees, then the allocations, each in the order of rows."""
    count = len(problem)
    row = np.arange(count)
    time = np.concatenate([problem.upper, problem.lower])
    which = np.concatenate([np.zeros(count, np.int64), np.ones(count, np.int64)])
    order = np.lexsort((np.concatenate([row, row]), which, time))
    allocates = which[order] == 1
    rows = np.concatenate([row, row])[order]
    number = np.empty(count, np.int64)
    number[rows[allocates]] = np.arange(count)
    names = problem.labels if any(problem.labels) else problem.ids
    return Requests(
        np.where(allocates, Action.ALLOCATE, Action.FREE).astype(np.uint8), number[rows],
        np.where(allocates, problem.size[rows], 0), np.zeros(2 * count, np.int32), np.zeros(2 * count, np.int32),
        np.full(2 * count, -1, np.int64), tuple(names[i] for i in rows[allocates].tolist()),
    )  # fmt: skip


def _ignored(problem: Problem) -> tuple[str, ...]:
    """What a Problem says that an allocator, which does not know the future, cannot use."""
    notes = []
    if problem.pieces:
        notes.append("gaps are for planners: an allocator holds a buffer from its first instant to its last")
    if problem.same or problem.in_place:
        notes.append("buffers that may share bytes are for planners: an allocator serves each")
    if (problem.offset >= 0).any():
        notes.append("pins are for planners: an allocator chooses its addresses")
    return tuple(notes)


def _of_trace(trace: Trace, name: str, accelerator: bool) -> Source:
    columns = (trace.storage, trace.delta, trace.op)
    if any(c.ndim != 1 or c.dtype.kind not in "iu" for c in columns) or len({len(c) for c in columns}) != 1:
        raise TraceError(name, "its events are not columns of whole numbers of one length")
    if len(trace) and not 0 <= int(trace.storage.min()) <= int(trace.storage.max()) < max(1, len(trace.storages)):
        raise TraceError(name, f"an event names a storage that is not there; it has {len(trace.storages)}")
    notes = []
    if accelerator:
        from memfit.api.prediction import on_accelerator

        trace = on_accelerator(trace)
        notes.append("on a GPU the scratch of CPU kernels is left out, as in predict")
    requests = requests_of_trace(trace)
    if not requests.blocks:
        raise TraceError(name, "it holds no allocation; was it cut off, or was nothing run?")
    left = len(trace) - len(requests)
    if left:
        notes.append(f"{left} events left out: frees of storages allocated before the trace, or of no bytes")
    return Source(requests, name, trace.kind, tuple(notes))


def _file(path: Path, accelerator: bool, say: Say) -> Source:
    name = str(path)
    if not path.is_file():
        hint = "write a file (.npz, .csv, .json, a snapshot pickle) or a target such as file.py:function"
        raise TargetError(name, "it is a folder" if path.is_dir() else "there is no such file", hint)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _of_trace(Trace.load(path), name, accelerator)
    if suffix == ".csv":
        try:
            with path.open(encoding="utf-8-sig") as file:
                events = is_event_table(file.readline(100_000))
        except (OSError, UnicodeDecodeError) as error:
            raise TraceError(name, f"it is no text ({error})") from error
        if events:
            return Source(read_event_table(path), name, "recorded")
    if suffix in (".csv", ".json") or name.lower().endswith(".json.gz"):
        found = problem_from(path, settings=None, alignment=1, constants=True, source=None, say=say)
        return Source(requests_of_problem(found.problem), name, "projected", (*found.notes, *_ignored(found.problem)))
    return _of_snapshot(path)


def _of_snapshot(path: Path) -> Source:
    snapshots = read_snapshot(path)
    if not snapshots:
        raise TraceError(str(path), "it holds no events; record with torch.cuda.memory._record_memory_history() first")
    chosen = max(snapshots, key=lambda snapshot: len(snapshot.requests))
    notes = []
    if len(snapshots) > 1:
        notes.append(f"of {len(snapshots)} devices, device {chosen.device} is replayed: it has most events")
    if chosen.prefix:
        notes.append(f"{chosen.prefix} blocks were alive before the first recorded event")
    return Source(chosen.requests, str(path), "recorded", tuple(notes), chosen)


def _program(target: Any, settings: Mapping[str, Any] | None, steps: int, accelerator: bool, say: Say) -> Source:
    from memfit.api.prediction import step_builder
    from memfit.frameworks.torch.tape import trace_step

    build, name = step_builder(target, settings)
    say("tracing the step", None, None)
    if isinstance(target, Step):
        trace = trace_step(target, steps=steps, accelerator=accelerator)
    else:
        trace = trace_step(lambda: build({}), steps=steps, accelerator=accelerator)
    return _of_trace(trace, name, accelerator)
