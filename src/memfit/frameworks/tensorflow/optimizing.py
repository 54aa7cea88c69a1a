"""A TensorFlow program -> a smaller one: captured, exact passes, written as a SavedModel, run beside the original."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from memfit.errors import TargetError
from memfit.frameworks.comparing import Compared, compare_calls
from memfit.frameworks.tensorflow.apply import Applied, Bench
from memfit.frameworks.tensorflow.capture import Captured, capture
from memfit.frameworks.tensorflow.rewrites import REWRITES
from memfit.frameworks.tensorflow.saved_model import folder_bytes, write
from memfit.frameworks.tensorflow.steps import runner
from memfit.passes.exact import optimize_program


class Smaller:
    """``program`` and what the passes made of it (``optimized``); see ``api.optimizing``."""

    def __init__(self, captured: Captured, path: str | None, bound: Mapping[str, int], reorder: bool,
                 progress: Callable[[str], None] | None) -> None:  # fmt: skip
        if captured.values.handles:
            raise TargetError(
                captured.program.name, "it assigns variables or reads tables, so what it computes is not its outputs alone",
                "optimize the model at inference",
            )  # fmt: skip
        self.captured, self.path, self.program = captured, path, captured.program
        self.optimized = optimize_program(
            captured.program, Bench(captured.values), rewrites=REWRITES, bound=bound, reorder=reorder, progress=progress
        )
        self.applied = Applied(captured, self.optimized.program)

    def before_bytes(self) -> int:
        """Bytes of the model's files; of its constants where it has none."""
        return folder_bytes(self.path) if self.path is not None else self.program.constant_bytes

    def node_count(self) -> int:
        """Operations of the new model as it is written, with the Identity in front of each result."""
        return capture(self.applied.signature).program.node_count

    def compare(self, bound: Mapping[str, int]) -> Compared:
        """Outputs of both at two sizes."""
        before = _positional(self.captured)
        return compare_calls(self.program, runner(self.captured, before), runner(self.captured, self.applied), bound)

    def write(self, output: str | None) -> int:
        """Write the SavedModel, or a draft that is thrown away; its bytes. A function has none: those of its constants."""
        if output is not None:
            return write(self.applied, output)
        if self.path is None:
            return self.optimized.program.constant_bytes
        with tempfile.TemporaryDirectory(prefix="memfit-") as folder:
            return write(self.applied, Path(folder) / "model")


def _positional(captured: Captured) -> Callable[..., Any]:
    """The function that was captured, called with its inputs in order."""
    function = captured.function
    names = [tensor.op.name for tensor in function.inputs[: len(captured.program.inputs)]]
    positional, keywords = function.structured_input_signature
    keywords = list(keywords)

    def call(*arrays: Any) -> Any:
        types = [captured.program.types[name].dtype for name in captured.program.inputs]
        given = [tf.convert_to_tensor(a, dtype=t) for a, t in zip(arrays, types, strict=True)]
        if not keywords:
            alike = len(tf.nest.flatten(positional, expand_composites=True)) == len(given)
            return function(*(tf.nest.pack_sequence_as(positional, given, expand_composites=True) if alike else given))
        by_name = dict(zip(names, given, strict=True))
        if set(by_name) >= set(keywords):
            return function(**{key: by_name[key] for key in keywords})
        return function(**dict(zip(sorted(keywords), given, strict=True)))

    return call
