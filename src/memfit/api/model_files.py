"""Model files as targets: which files are programs that need no run, and how each kind is read.

*.onnx                                    through ``frameworks.onnx``
*.pt2                                     through ``frameworks.torch`` (what ``torch.export.save`` writes)
a folder with saved_model.pb, *.keras     through ``frameworks.tensorflow``
more kinds    a row in ``_READERS``: (module, function); the function takes a path and returns a Program
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from memfit.analyses.graph_trace import trace_of_graph
from memfit.analyses.lowering import lower, numbers_for
from memfit.errors import TargetError
from memfit.ir.dimension import number
from memfit.ir.graph import Graph
from memfit.ir.program import Program
from memfit.ir.trace import Category, Trace

SAVED_MODEL = "SavedModel"
_READERS: dict[str, tuple[str, str]] = {
    ".onnx": ("memfit.frameworks.onnx.capture", "program_of_file"),
    ".pt2": ("memfit.frameworks.torch.exported_capture", "program_of_file"),
    ".keras": ("memfit.frameworks.tensorflow.saved_model", "program_of_file"),
    SAVED_MODEL: ("memfit.frameworks.tensorflow.saved_model", "program_of_file"),
}

_SAVED = ("saved_model.pb", "saved_model.pbtxt")
PROCESS_BYTES = {".onnx": 62_000_000, ".pt2": 260_000_000, ".keras": 640_000_000, SAVED_MODEL: 640_000_000}
"""Resident bytes of a process that has imported the runtime of such a file and loaded an empty model."""


def kind_of(target: Any) -> str:
    """The row of ``_READERS`` that a path belongs to, "" for none."""
    if not isinstance(target, (str, Path)):
        return ""
    suffix = Path(target).suffix.lower()
    if suffix in _READERS:
        return suffix
    return SAVED_MODEL if any((Path(target) / name).is_file() for name in _SAVED) else ""


def is_model_file(target: Any) -> bool:
    """Whether ``target`` is the path of a model file that can be read."""
    return bool(kind_of(target))


def base_bytes(target: str | Path) -> int:
    """Resident bytes of a process that is ready to run a model file of this kind."""
    return PROCESS_BYTES[kind_of(target)]


def program_of(target: str | Path) -> Program:
    """The Program in a model file.

    Raises:
        MissingFrameworkError: what reads such a file is not installed.
        TargetError: the file cannot be used.
    """
    module, name = _READERS[kind_of(target)]
    read: Callable[[str | Path], Program] = getattr(importlib.import_module(module), name)
    return read(target)


def graph_of(program: Program, bound: Mapping[str, int]) -> Graph:
    """The Graph of a program at the bound dimensions.

    Raises:
        TargetError: a dimension is not bound, or a size is impossible.
    """
    return lower(program, numbers_for(program, bound))


def trace_of(program: Program, bound: Mapping[str, int]) -> Trace:
    """The projected Trace of one run at the bound dimensions. Errors: as ``graph_of``."""
    numbers = numbers_for(program, bound)
    graph = lower(program, numbers)
    labels: Mapping[str, str] = program.meta.get("labels", {})
    categories: Mapping[str, str] = program.meta.get("categories", {})
    shapes = {
        name: (tuple(number(size, numbers) for size in given.shape), given.dtype)
        for name, given in program.types.items()
        if given.shape is not None
    }
    trace = trace_of_graph(graph, shapes)
    if not labels and not categories:
        return trace
    storages = tuple(
        replace(
            row, label=labels.get(row.label, row.label if row.label in program.constants else ""),
            category=Category(categories.get(row.label, row.category)),
        )
        for row in trace.storages
    )  # fmt: skip
    return replace(trace, storages=storages)


def no_settings(target: Any, settings: Mapping[str, Any] | None) -> None:
    """Refuse settings, which belong to functions.

    Raises:
        TargetError: there are some.
    """
    if settings:
        name = next(iter(settings))
        raise TargetError(str(target), "a model file takes no settings", f"bind a dimension with --bind {name}=...")
