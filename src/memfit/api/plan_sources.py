"""What ``plan`` can plan -> a Problem: a table, a trace, a graph, an earlier plan, or a program's step.

*.csv                  a table of buffers, MiniMalloc's columns
*.npz                  a trace that ``memfit predict`` or ``profile`` saved (--save-trace)
*.onnx                 a model file, its open dimensions bound
*.json, *.json.gz      a Graph, or a plan that ``memfit plan --out`` wrote (planned anew)
file.py:function       a target: its step captured as a graph; where that cannot be, its predicted trace
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from memfit.api.model_files import graph_of
from memfit.api.programs import only_programs, program_source
from memfit.errors import CaptureError, ProblemError, TargetError, TraceError
from memfit.ir.graph import Graph
from memfit.ir.step import Step
from memfit.ir.trace import Trace
from memfit.passes.order import Ordered, order_for_peak
from memfit.planners.lifetimes import ALIGNMENT, problem_of_graph, problem_of_trace
from memfit.planners.load import load_of
from memfit.planners.plan_file import is_plan, plan_of
from memfit.planners.problem import Problem
from memfit.planners.table import read_table

GRAPH, TRACE = "graph", "trace"
_LATER = {".pt2": "exported programs", ".safetensors": "model files"}

Say = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class Source:
    """The Problem found, what a report calls it, and notes for the reader."""

    problem: Problem
    name: str
    notes: tuple[str, ...] = ()
    ordered: Ordered | None = None


def problem_from(
    target: Any, *, settings: Mapping[str, Any] | None, alignment: int | None, constants: bool, source: str | None, say: Say,
    order: bool = False, time_limit: float = 10.0, bound: Mapping[str, int] | None = None,
) -> Source:  # fmt: skip
    """The Problem of whatever ``plan`` was given; see ``memfit.api.planning.plan`` for the arguments."""
    say("reading the program", None, None)
    known = None if isinstance(target, Problem | Trace | Graph) else program_source(target, settings)
    if known is not None and source != TRACE:
        graph, name = graph_of(known.program, bound or {}), known.name
        found = problem_from(
            graph, settings=None, alignment=alignment, constants=constants, source=source, say=say, order=order,
            time_limit=time_limit,
        )  # fmt: skip
        return replace(found, name=name)
    only_programs(target, bound)
    if order:
        return _in_order(target, settings, alignment, constants, source, say, time_limit)
    if alignment is not None and not 1 <= alignment <= 1 << 40:
        raise ProblemError("this program", f"{alignment} is no alignment", "write 1 byte to 1 TiB, such as 64")
    if source not in (None, GRAPH, TRACE):
        raise ProblemError("this program", f"there is no source {source!r}", f"write {GRAPH} or {TRACE}")
    how: dict[str, Any] = {"alignment": ALIGNMENT if alignment is None else alignment, "constants": constants}
    if isinstance(target, Problem):
        return Source(_aligned(target, alignment), "these buffers")
    if isinstance(target, Trace):
        return Source(problem_of_trace(target, **how), f"a {target.kind} trace")
    if isinstance(target, Graph):
        return Source(problem_of_graph(target, **how), "a graph")
    if isinstance(target, str | Path) and ":" not in Path(target).name:
        _no_settings(str(target), settings)
        say("reading the file", None, None)
        return _file(Path(target), alignment, how)
    return _step(target, settings or {}, how, source, say)


def _in_order(
    target: Any, settings: Mapping[str, Any] | None, alignment: int | None, constants: bool, source: str | None, say: Say,
    time_limit: float,
) -> Source:  # fmt: skip
    """The Problem of a graph whose ops were put in the order with the least peak first; never a larger load."""
    graph, name = _graph_of(target, settings, source, say)
    how: dict[str, Any] = {"alignment": ALIGNMENT if alignment is None else alignment, "constants": constants}
    given = problem_of_graph(graph, **how)
    ordered = order_for_peak(
        graph, time_limit=time_limit, progress=lambda text, share: say(text, int(100 * share), 100)
    )
    problem = problem_of_graph(graph, ordered.schedule, **how)
    if load_of(problem).peak > load_of(given).peak:  # rounding to the alignment took more than the order gave
        own = tuple(range(len(graph.ops)))
        problem, ordered = given, replace(ordered, schedule=own, peak=ordered.given_peak, optimal=False)
    return Source(problem, name, ordered=ordered)


def _graph_of(
    target: Any, settings: Mapping[str, Any] | None, source: str | None, say: Say
) -> tuple[Graph, str]:  # fmt: skip
    if isinstance(target, Graph):
        return target, "a graph"
    why = "an order of ops needs a graph: a Graph (.json) or a target (file.py:function)"
    if source == TRACE or isinstance(target, Problem | Trace):
        raise ProblemError("another order", why, "leave --order out")
    if isinstance(target, str | Path) and ":" not in Path(target).name:
        _no_settings(str(target), settings)
        path = Path(target)
        if not path.is_file():
            raise TargetError(
                str(path), "there is no such file", "write a file (.json) or a target such as file.py:function"
            )
        if not path.name.lower().endswith((".json", ".json.gz")) or is_plan(data := read_json(path)):
            raise ProblemError(f"another order of {path}", why, "leave --order out")
        return graph_in(data, str(path)), str(path)
    from memfit.frameworks.torch.step_graph import graph_of_step

    name, build = _builder(target, settings or {})
    say("capturing the step as a graph", None, None)
    return graph_of_step(build), name


def _file(path: Path, alignment: int | None, how: dict[str, Any]) -> Source:
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    name = str(path)
    if suffix in _LATER:
        raise TargetError(
            name,
            f"{_LATER[suffix]} cannot be read yet",
            "plan a target (file.py:function), a saved trace or a CSV of lifetimes",
        )
    if not path.is_file():
        hint = "write a file (.csv, .npz, .json) or a target such as file.py:function"
        raise TargetError(name, "there is no such file", hint)
    if suffix == ".csv":
        problem = read_table(path)
        ignored = problem.meta.get("ignored_columns", ())
        notes = [f"columns that mean nothing here were left out: {', '.join(ignored)}"] if ignored else []
        if problem.meta.get("unended"):
            notes.append("the last row has no line end: if the file was cut off, its last number may be too small")
        return Source(_aligned(problem, alignment), name, tuple(notes))
    if suffix == ".npz":
        return Source(problem_of_trace(Trace.load(path), **how), name)
    if suffix in (".json", ".json.gz"):
        data = read_json(path)
        if is_plan(data):
            return Source(_aligned(plan_of(data, name).problem, alignment), name)
        return Source(problem_of_graph(graph_in(data, name), **how), name)
    raise TargetError(
        name,
        "nothing is known of such a file",
        "plan a .csv table, a .npz trace, a .json graph or plan, or file.py:function",
    )


def read_json(path: Path) -> Any:
    """The data of a JSON file, packed (.gz) or not; a TraceError where it is none."""
    try:
        content = path.read_bytes()
        return json.loads(gzip.decompress(content) if path.suffix.lower() == ".gz" else content)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise TraceError(str(path), f"it is no JSON ({error})") from error


def graph_in(data: Any, name: str) -> Graph:
    """The Graph in JSON data, each index in it checked."""
    try:
        graph = Graph.from_json(data)
        count = len(graph.storages)
        for op in graph.ops:
            for storage in (*op.reads, *op.writes, *op.changes, *([op.reuse] if op.reuse != -1 else [])):
                if not 0 <= storage < count:
                    raise TraceError(name, f"op {op.name} names storage {storage}, there are {count}")
        if any(not isinstance(s.nbytes, int) or s.nbytes < 0 for s in graph.storages):
            raise TraceError(name, "a storage has no size")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TraceError(name, f"it is neither a graph nor a plan of memfit ({error!r})") from error
    return graph


def _aligned(problem: Problem, alignment: int | None) -> Problem:
    """``problem`` with every offset also a multiple of ``alignment``, where one was asked for."""
    if alignment is None or alignment == 1:
        return problem
    both = np.array([math.lcm(own, alignment) for own in problem.alignment.tolist()], dtype=np.int64)
    off = (problem.offset >= 0) & (problem.offset % both != 0)
    if off.any():
        row = int(np.argmax(off))
        raise ProblemError(
            f"buffer {problem.ids[row]!r}", f"its pin {problem.offset[row]} is no multiple of {both[row]} bytes",
            "leave --alignment out, or move the pin",
        )  # fmt: skip
    return replace(problem, alignment=both)


def _no_settings(name: str, settings: Mapping[str, Any] | None) -> None:
    if settings:
        raise TargetError(name, "a file takes no settings", "--set belongs to a target such as file.py:function")


def _builder(target: Any, settings: Mapping[str, Any]) -> tuple[str, Callable[[], Step] | Step]:
    """What a report calls the target, and its step or what builds it."""
    from memfit.frameworks.target import load_function, step_of

    if isinstance(target, Step):
        if settings:
            raise TargetError("step", "a Step that exists takes no settings", "pass the function that makes it")
        return type(target.model).__name__, target
    function = load_function(target) if isinstance(target, str) else target
    if not callable(function):
        raise TargetError(
            repr(target)[:80], "it is no target", "pass a path, a Problem, Trace, Graph, Step or function"
        )
    name = target if isinstance(target, str) else getattr(function, "__name__", type(function).__name__)
    return name, partial(step_of, function, name, settings)


def _step(target: Any, settings: Mapping[str, Any], how: dict[str, Any], source: str | None, say: Say) -> Source:
    name, build = _builder(target, settings)
    notes = []
    if source != TRACE:
        say("capturing the step as a graph", None, None)
        try:
            from memfit.frameworks.torch.step_graph import graph_of_step

            return Source(problem_of_graph(graph_of_step(build), **how), name)
        except CaptureError as error:
            if source == GRAPH:
                raise
            notes.append(f"planned from the predicted trace of one step: memfit {error}")
    from memfit.frameworks.torch.tape import trace_step

    say("tracing the step", None, None)
    return Source(problem_of_trace(trace_step(build, steps=1), **how), name, tuple(notes))
