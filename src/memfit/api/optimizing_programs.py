"""`optimize` of what is no ONNX file: SavedModel folders, .keras and .pt2 files, steps of PyTorch, JAX and TensorFlow.

Each front end hands over a model with the same few methods (``SmallerModel``); the passes are those of ``passes.exact``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from memfit.analyses.lowering import numbers_for
from memfit.api.model_files import SAVED_MODEL, kind_of, no_settings
from memfit.api.optimizing import SIZE, projected_peak
from memfit.api.programs import step_of_other
from memfit.errors import TargetError, VerifyError
from memfit.frameworks.comparing import Compared
from memfit.ir.ops.table import facts
from memfit.ir.program import Program, programs
from memfit.passes.exact import Optimized
from memfit.report.optimize_summary import ModelFigures, OptimizeReport

TOLERANCE = 1e-4
"""Largest relative difference of an output that rounding at other places explains; above it nothing is written."""
Say = Callable[[str, int | None, int | None], None]


class SmallerModel(Protocol):
    """A front end's model before and after the passes."""

    program: Program
    optimized: Optimized

    def before_bytes(self) -> int:
        """Bytes of the original's files."""

    def node_count(self) -> int:
        """Operations of the new model, as it is written."""

    def compare(self, bound: Mapping[str, int]) -> Compared:
        """Outputs of both on the same inputs."""

    def write(self, output: str | None) -> int:
        """Write the new model; its bytes. None: write nothing that stays."""


def optimize_other(
    target: Any, output: str | None, bound: Mapping[str, int], settings: Mapping[str, Any] | None, *, verify: bool,
    reorder: bool, say: Say, begun: float,
) -> OptimizeReport:  # fmt: skip
    """As ``api.optimizing.optimize``, which see."""
    say("reading the model", None, None)
    found = _smaller(target, bound, settings, reorder, lambda text: say(text, None, None))
    seconds = time.perf_counter() - begun
    compared = None
    if verify:
        say("checking the new model", None, None)
        compared = found.compare(bound)
        if not compared.max_error <= TOLERANCE:
            if any(facts(operation).random for inner in programs(found.program) for operation in inner.operations):
                raise TargetError(
                    found.program.name, "it draws random numbers, so that no two runs of it are equal",
                    "give it numbers that are drawn outside, or leave the check out with --no-verify",
                )  # fmt: skip
            what = "outputs of the optimised model"
            raise VerifyError(what, f"a difference of at most {TOLERANCE}", compared.max_error)
    written = found.write(output)
    program, new = found.program, found.optimized.program
    sizes = numbers_for(program, bound, default=SIZE)
    before, after = (
        ModelFigures(nodes, nbytes, p.constant_bytes, projected_peak(p, sizes))
        for p, nodes, nbytes in (
            (program, program.node_count, found.before_bytes()),
            (new, found.node_count(), written),
        )
    )
    notes: tuple[str, ...] = ()
    if found.optimized.refused:
        notes = (f"left out, because constants + live peak would rise: {', '.join(found.optimized.refused)}",)
    return OptimizeReport(
        program.name, before, after, output, compared.max_error if compared else None, compared.equal if compared else None,
        {name: sizes[name] for name in program.dimensions}, found.optimized.log, {}, seconds, notes,
    )  # fmt: skip


def _smaller(
    target: Any, bound: Mapping[str, int], settings: Mapping[str, Any] | None, reorder: bool, say: Callable[[str], None]
) -> SmallerModel:  # fmt: skip
    kind = kind_of(target)
    if kind:
        no_settings(target, settings)
    if kind in (".keras", SAVED_MODEL):
        from memfit.frameworks.tensorflow.saved_model import captured_file

        captured = captured_file(target)
        from memfit.frameworks.tensorflow import optimizing as tensorflow

        return tensorflow.Smaller(captured, str(target), bound, reorder, say)
    if kind == ".pt2":
        from memfit.frameworks.torch import exported_optimizing as exported
        from memfit.frameworks.torch.exported_capture import captured_file as captured_pt2

        return exported.Smaller(captured_pt2(target), bound, reorder, say)
    if isinstance(target, Path) or (isinstance(target, str) and ":" not in Path(target).name):
        raise _no_model(Path(target))
    found = step_of_other(target, settings)
    if found is None:
        return _exported_here(target, bound, settings, reorder, say)
    name, step, framework = found
    if framework == "tensorflow":
        from memfit.frameworks.tensorflow import optimizing as tensorflow
        from memfit.frameworks.tensorflow.steps import captured_step

        return tensorflow.Smaller(captured_step(step, name), None, bound, reorder, say)
    from memfit.frameworks.jax import optimizing as jax

    return jax.Smaller(step, name, bound, reorder, say)


def _no_model(path: Path) -> TargetError:
    """What to say of a path that the exact passes cannot read."""
    if not path.exists():
        why, instead = "there is no such file or folder", "write the path of a model file, or file.py:function"
    elif path.is_dir() and any(path.glob("*.safetensors")):
        why = "a folder of weights has no operations for the exact passes"
        instead = "say how small its weights are to be: --budget SIZE, --quantize FORMAT or --sparsify 2:4|SHARE"
    else:
        why = "it is no model file that the exact passes read"
        instead = "write the path of an .onnx, .pt2 or .keras file or a SavedModel folder, or file.py:function"
    return TargetError(str(path), why, instead)


def _exported_here(
    target: Any, bound: Mapping[str, int], settings: Mapping[str, Any] | None, reorder: bool, say: Callable[[str], None]
) -> SmallerModel:  # fmt: skip
    """A step of PyTorch's at inference: exported into a folder that goes when the model goes."""
    from memfit.api.prediction import step_builder
    from memfit.frameworks.torch import exported_optimizing as exported

    build, name = step_builder(target, settings)
    step = build({})
    say("exporting the model")
    folder = tempfile.TemporaryDirectory(prefix="memfit-")
    captured = exported.exported_step(step, name, folder.name)
    made = exported.Smaller(captured, bound, reorder, say, has_file=False)
    made.folder = folder
    return made
