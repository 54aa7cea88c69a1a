"""Targets that are Programs: a model file, or a function whose step is JAX's or TensorFlow's; PyTorch's are traced instead.

    *.onnx, ...           ``api.model_files``
    file.py:function      its module imports JAX or TensorFlow, and the step that it returns is theirs

A function that returns PyTorch's Step is never called here unless its module imports another framework as well; then it
is called on hollow tensors, so that its model costs no memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from memfit.api import model_files
from memfit.errors import TargetError
from memfit.frameworks.target import load_function, step_of
from memfit.frameworks.which import framework_of
from memfit.ir.program import Program
from memfit.ir.step import Step
from memfit.ir.trace import Trace

_OTHERS = {"jax": "jax", "flax": "jax", "optax": "jax", "tensorflow": "tensorflow", "keras": "tensorflow"}


@dataclass(frozen=True)
class ProgramSource:
    """``program`` and what is known around it. ``base``: resident bytes of a process before the first tensor.

    ``compiled``: bytes that the framework's compiler plans at numbers for the open dimensions, None where there is none.
    ``traced``: one run under the framework's own eyes, (numbers, whether on an accelerator) -> Trace, or None where it
    cannot be; the graph is used then.
    """

    name: str
    program: Program
    base: int
    compiled: Callable[[Mapping[str, int]], int] | None = None
    traced: Callable[[Mapping[str, int], bool], Trace | None] | None = None


def program_source(target: Any, settings: Mapping[str, Any] | None = None) -> ProgramSource | None:
    """The Program of a target; None where the target is a step of PyTorch's, or nothing that has one.

    Raises:
        MissingFrameworkError, TargetError, CaptureError: the target cannot be used.
    """
    if model_files.is_model_file(target):
        model_files.no_settings(target, settings)
        if model_files.kind_of(target) == ".pt2":
            return _exported(target)
        return ProgramSource(str(target), model_files.program_of(target), model_files.base_bytes(target))
    if isinstance(target, str) and ":" not in Path(target).name:
        return None
    found = step_of_other(target, settings)
    if found is None:
        return None
    name, step, framework = found
    if framework == "jax":
        from memfit.frameworks.jax import predicting

        program, whole = predicting.program_of_step(step, name)
        few = program.node_count <= predicting.MOST_COMPILED
        compiled = (lambda numbers: predicting.compiled_bytes(whole, name, numbers)) if few else None
        return ProgramSource(name, program, predicting.PROCESS_BYTES, compiled)
    from memfit.frameworks.tensorflow.saved_model import PROCESS_BYTES
    from memfit.frameworks.tensorflow.steps import captured_step

    return ProgramSource(name, captured_step(step, name).program, PROCESS_BYTES)


def _exported(target: str | Path) -> ProgramSource:
    from memfit.frameworks.torch.exported_capture import captured_file
    from memfit.frameworks.torch.exported_predicting import trace_of_exported

    exported = captured_file(target)

    def traced(numbers: Mapping[str, int], accelerator: bool) -> Trace | None:
        return trace_of_exported(exported, numbers, accelerator=accelerator)

    return ProgramSource(str(target), exported.program, model_files.base_bytes(target), traced=traced)


def step_of_other(target: Any, settings: Mapping[str, Any] | None) -> tuple[str, Step, str] | None:
    """(name, step, framework) of a target whose step is not PyTorch's, else None."""
    if isinstance(target, Step):
        framework = framework_of(target)
        return None if framework == "torch" else (type(target.model).__name__, target, framework)
    if not isinstance(target, str) and not callable(target):
        return None
    function = load_function(target) if isinstance(target, str) else target
    roots = _roots(function)
    others = {_OTHERS[root] for root in roots if root in _OTHERS}
    if not others:
        return None
    name = target if isinstance(target, str) else getattr(function, "__name__", type(function).__name__)
    if "torch" in roots:
        from memfit.frameworks.torch.step_graph import built_hollow

        step = built_hollow(lambda: step_of(function, name, settings))
    else:
        step = step_of(function, name, settings)
    framework = framework_of(step)
    return None if framework == "torch" else (name, step, framework)


def _roots(function: Callable[..., Any]) -> frozenset[str]:
    """Top packages of what the module of a function imported."""
    found = set()
    for value in getattr(function, "__globals__", {}).values():
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str):
            found.add(name.partition(".")[0])
    code = getattr(function, "__code__", None)
    names = (*code.co_names, *code.co_consts) if code is not None else ()
    found.update(n for n in names if isinstance(n, str) and n in _OTHERS and n in sys.modules)
    return frozenset(found)


def only_programs(target: Any, bound: Mapping[str, int] | None) -> None:
    """Refuse bound dimensions for what has none.

    Raises:
        TargetError: there are some and the target is a step of PyTorch's.
    """
    if bound:
        raise TargetError(
            str(target), "--bind is for the open dimensions of a model file, or of a JAX or TensorFlow function",
            "a function of PyTorch's takes --set NAME=VALUE",
        )  # fmt: skip
