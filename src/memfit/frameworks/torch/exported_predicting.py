"""One run of a ``.pt2`` file as a Trace: its module built on hollow tensors and run under the tape, as any step of PyTorch's.

So a file is predicted with what kernels need inside. A file whose operators are not registered here, or that cannot run
hollow (loops over values), is predicted from its graph alone, and the trace says so. Nothing of the file is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from memfit.analyses.lowering import numbers_for
from memfit.errors import MemfitError, target_named
from memfit.frameworks.torch.exported_apply import Applied
from memfit.frameworks.torch.exported_capture import Exported
from memfit.frameworks.torch.tape import trace_step
from memfit.ir.dimension import number
from memfit.ir.program import programs
from memfit.ir.step import Step
from memfit.ir.trace import Trace


def trace_of_exported(exported: Exported, bound: Mapping[str, int], *, accelerator: bool = False) -> Trace | None:
    """The projected Trace of one run; None where the operators cannot run on hollow tensors.

    Args:
        exported: the file.
        bound: numbers of its open dimensions.
        accelerator: as for ``trace_step``.

    Raises:
        TargetError: a dimension is not bound.
    """
    program = exported.program
    numbers = numbers_for(program, bound)
    if any(operation.bodies for inner in programs(program) for operation in inner.operations):
        return None

    def hollow(reference: str) -> torch.Tensor:
        weight = exported.weights[reference]
        return torch.empty_strided(weight.shape, weight.strides, dtype=weight.dtype)

    def build() -> Step:
        model = Applied(exported, program, hollow)
        given = []
        for name, value in exported.arguments:
            if name is None:
                given.append(value)
                continue
            made = program.types[name]
            shape = [size if isinstance(size, int) else number(size, numbers) for size in made.shape or ()]
            given.append(torch.zeros(shape, dtype=getattr(torch, made.dtype)))
        return Step(model.eval(), tuple(given), train=False)

    try:
        with target_named(exported.file.name):
            trace = trace_step(build, steps=1, real=False, accelerator=accelerator)
    except MemfitError:
        return None
    prefix = "module."
    storages = tuple(
        replace(row, label=row.label.removeprefix(prefix)) if row.label.startswith(prefix) else row
        for row in trace.storages
    )
    return replace(trace, storages=storages)
