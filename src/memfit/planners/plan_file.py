"""A plan as a file that a runtime loads: where every buffer lies, in JSON that checks itself.

::

    {"format": "memfit plan", "version": 1, "digest": "...",
     "strategy": "...", "peak": bytes, "lower_bound": bytes, "seconds": CPU seconds of planning,
     "memories": [{"name", "capacity": bytes or null, "peak": bytes}],
     "buffers": {"id": [...], "lower": [...], "upper": [...], "size": [...], "alignment": [...],
                 "offset": [...], "memory": [...], "fixed": [...], "label": [...], ...},
     "pieces": {index: [[lower, upper, low, high], ...]}, "same": [[a, b]], "in_place": [[a, b]]}

Columns have one entry a buffer; ``memory`` is an index into ``memories``; ``fixed`` is the pin, or -1. Optional columns are
left out where nothing stands in them. A file is taken only where its digest matches its content, and its offsets pass
``memfit.planners.validate``: half a file, an edited offset, another program's numbers are refused, never executed.
Cost: about 2 us a buffer, and the validator's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memfit.errors import CapacityError, ProblemError, TraceError
from memfit.files import write_atomically
from memfit.planners.problem import ANY_MEMORY, FREE_OFFSET, Memory, Piece, Placement, Problem
from memfit.planners.validate import check_problem, why_invalid

FORMAT, VERSION = "memfit plan", 1
_COLUMNS = ("lower", "upper", "size", "alignment")


@dataclass(frozen=True)
class Plan:
    """A Problem and where its buffers lie."""

    problem: Problem
    placement: Placement


def plan_text(problem: Problem, placement: Placement) -> str:
    """The JSON text of a plan."""
    content = _content(problem, placement)
    return json.dumps({"format": FORMAT, "version": VERSION, "digest": _digest(content), **content})


def save_plan(path: str | Path, problem: Problem, placement: Placement) -> None:
    """Write a plan, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomically(path, plan_text(problem, placement) + "\n")


def load_plan(path: str | Path) -> Plan:
    """Read what ``save_plan`` wrote, and check it.

    Raises:
        TraceError: the file is missing, damaged, edited, of another version, or its placement is not valid.
    """
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise TraceError(str(path), error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise TraceError(str(path), f"it is no JSON ({error})") from error
    return plan_of(data, str(path))


def is_plan(data: Any) -> bool:
    """Whether JSON data claims to be a plan."""
    return isinstance(data, dict) and data.get("format") == FORMAT


def plan_of(data: Any, where: str) -> Plan:
    """The plan in JSON data, checked; ``where``: what errors call it.

    Raises:
        TraceError: as ``load_plan``.
    """
    if not is_plan(data):
        raise TraceError(where, "it is no plan of memfit; write one with memfit plan --out plan.json")
    if data.get("version") != VERSION:
        raise TraceError(where, f"it is a plan of version {data.get('version')!r}, this memfit reads {VERSION}")
    content = {name: value for name, value in data.items() if name not in ("format", "version", "digest")}
    if data.get("digest") != _digest(content):
        raise TraceError(where, "its digest does not match its content: it was cut off or edited; plan again")
    try:
        plan = _plan(content)
        check_problem(plan.problem)
    except (ProblemError, CapacityError) as error:
        raise TraceError(where, f"what it placed is no problem: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError) as error:
        raise TraceError(where, f"a field of the plan is not what it should be ({error!r})") from error
    why = why_invalid(plan.problem, plan.placement)
    if why:
        raise TraceError(where, f"its placement is not valid: {why}")
    return plan


def memory_peaks(problem: Problem, placement: Placement) -> tuple[int, ...]:
    """The highest byte in use in each memory."""
    top = placement.offset + problem.size
    for buffer, pieces in problem.pieces.items():
        top[buffer] = placement.offset[buffer] + max(piece.high for piece in pieces)
    return tuple(int(top[placement.memory == index].max(initial=0)) for index in range(len(problem.memories)))


def _content(problem: Problem, placement: Placement) -> dict[str, Any]:
    peaks = memory_peaks(problem, placement)
    buffers: dict[str, Any] = {"id": list(problem.ids)}
    buffers |= {name: getattr(problem, name).tolist() for name in _COLUMNS}
    buffers |= {"offset": placement.offset.tolist(), "memory": placement.memory.tolist()}
    if (problem.offset != FREE_OFFSET).any():
        buffers["fixed"] = problem.offset.tolist()
    if (problem.memory != ANY_MEMORY).any():
        buffers["must_lie_in"] = problem.memory.tolist()
    if problem.expected is not None:
        buffers["expected"] = problem.expected.tolist()
    if any(problem.labels):
        buffers["label"] = list(problem.labels)
    return {
        "strategy": placement.strategy, "peak": int(placement.peak), "lower_bound": int(placement.bound),
        "seconds": float(placement.seconds),
        "memories": [
            {"name": memory.name, "capacity": memory.capacity, "peak": peak}
            for memory, peak in zip(problem.memories, peaks, strict=True)
        ],
        "buffers": buffers,
        "pieces": {str(b): [[p.lower, p.upper, p.low, p.high] for p in row] for b, row in problem.pieces.items()},
        "same": [list(pair) for pair in problem.same], "in_place": [list(pair) for pair in problem.in_place],
    }  # fmt: skip


def _plan(content: dict[str, Any]) -> Plan:
    buffers = content["buffers"]
    ids = tuple(map(str, buffers["id"]))
    count = len(ids)

    def column(name: str, default: int | None = None) -> Any:
        if default is not None and name not in buffers:
            return np.full(count, default, dtype=np.int64)
        found = np.array(buffers[name], dtype=np.int64)
        if found.shape != (count,):
            raise ValueError(f"{name} has {found.size} entries for {count} buffers")
        return found

    memories = tuple(
        Memory(str(m["name"]), None if m["capacity"] is None else int(m["capacity"])) for m in content["memories"]
    )
    problem = Problem(
        ids, column("lower"), column("upper"), column("size"), column("alignment"),
        column("fixed", FREE_OFFSET), column("must_lie_in", ANY_MEMORY),
        {int(b): tuple(Piece(*map(int, row)) for row in rows) for b, rows in content["pieces"].items()},
        tuple((int(a), int(b)) for a, b in content["same"]), tuple((int(a), int(b)) for a, b in content["in_place"]),
        memories, column("expected") if "expected" in buffers else None, tuple(map(str, buffers.get("label", ()))),
        {"source": "plan"},
    )  # fmt: skip
    placement = Placement(
        str(content["strategy"]), column("offset"), column("memory"), int(content["peak"]), int(content["lower_bound"]),
        float(content["seconds"]),
    )  # fmt: skip
    return Plan(problem, placement)


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
