"""What only PyTorch's operators need, beside the exact passes: dropout that is off, copies to the same type, normalisation.

dropout(x, p, False), to(x, same type), clone of what is made here    ->   x
batch_norm(conv(x, w, b), ...) at inference        ->   conv(x, w', b')      reassociating: sums in another order
batch_norm(linear(x, w, b), ...) of rows            ->   linear(x, w', b')    the same
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from memfit.frameworks.torch.exported_apply import Bench
from memfit.frameworks.torch.exported_arguments import Ref
from memfit.ir.ops.table import facts
from memfit.ir.program import Operation, Program
from memfit.passes.fold import SMALL
from memfit.passes.workbench import Pass, Rewriting, Workbench

_OFF = ("dropout.default", "feature_dropout.default", "alpha_dropout.default", "feature_alpha_dropout.default")
_SAME = ("to.dtype", "to.dtype_layout", "to.device", "_to_copy.default", "type_as.default", "lift_fresh_copy.default",
         "detach.default", "alias.default", "contiguous.default", "detach_copy.default")  # fmt: skip
_NORM = "aten.batch_norm.default"
_CONVOLUTIONS = tuple(f"aten.conv{n}d.{kind}" for n in (1, 2, 3) for kind in ("default", "padding"))
_LINEAR = "aten.linear.default"


def drop_nothing(program: Program, bench: Workbench) -> Program:
    """``program`` without dropout that is off and copies that change nothing. Bit-identical."""
    work = Rewriting(program)
    for index, operation in enumerate(program.operations):
        kind = operation.kind.partition(".")[2]
        what = facts(operation)
        if len(operation.outputs) != 1 or not operation.inputs or not what.pure:
            continue
        source, output = operation.inputs[0], operation.outputs[0]
        same = kind in _OFF or (
            kind in _SAME and (what.view == 0 or kind in ("_to_copy.default", "lift_fresh_copy.default"))
        )
        if same and program.types[source] == program.types[output] and output not in work.outputs:
            work.rename(output, source)
            work.replace(index)
    return work.done()


def norm_into_weights(program: Program, bench: Workbench) -> Program:
    """``program`` with batch normalisation at inference folded into the convolution or product before it. Reassociating."""
    assert isinstance(bench, Bench)
    work = Rewriting(program)
    for index, operation in enumerate(program.operations):
        if operation.kind != _NORM or operation.attribute("positional")[5] is not False:
            continue
        maker = program.producer.get(operation.inputs[0])
        if maker is None or len(program.readers[operation.inputs[0]]) != 1 or operation.inputs[0] in work.outputs:
            continue
        before = program.operations[maker]
        rows = before.kind == _LINEAR and len(program.types[operation.outputs[0]].shape or ()) == 2
        if not (rows or before.kind in _CONVOLUTIONS) or before.inputs[1] not in program.constants:
            continue
        if program.constants[before.inputs[1]].nbytes > SMALL and len(program.readers[before.inputs[1]]) > 1:
            continue  # changed for one reader the weight would be held twice
        found = _folded(program, before, operation, bench)
        if found is None:
            continue
        weight, bias = (work.constant(bench.keep(tensor), before.inputs[1]) for tensor in found)
        positional = before.attribute("positional")
        rest = positional[3:] if len(positional) > 3 else ()
        attributes = dict(before.attributes) | {
            "positional": (Ref(0), Ref(1), Ref(2), *rest),
            "keywords": tuple(pair for pair in before.attribute("keywords") if pair[0] != "bias"),
        }
        joined = replace(
            before, inputs=(before.inputs[0], weight, bias), outputs=operation.outputs,
            attributes=tuple(sorted(attributes.items())),
        )  # fmt: skip
        work.replace(maker)
        work.replace(index, joined)
    return work.done()


def _folded(
    program: Program, convolution: Operation, norm: Operation, bench: Bench
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(weight, bias) of the convolution that does both."""
    positional = norm.attribute("positional")

    def tensor(template: Any, operation: Operation) -> torch.Tensor | None:
        if not isinstance(template, Ref) or operation.inputs[template.index] not in program.constants:
            return None
        return bench.values(program.constants[operation.inputs[template.index]].reference)

    mean, variance = tensor(positional[3], norm), tensor(positional[4], norm)
    if mean is None or variance is None:
        return None
    gamma, beta = tensor(positional[1], norm), tensor(positional[2], norm)
    if (gamma is None and positional[1] is not None) or (beta is None and positional[2] is not None):
        return None
    given = convolution.attribute("positional")
    bias_template = given[2] if len(given) > 2 else dict(convolution.attribute("keywords")).get("bias")
    bias = tensor(bias_template, convolution)
    if bias is None and bias_template is not None:
        return None
    weight = bench.values(program.constants[convolution.inputs[1]].reference)
    scale = torch.rsqrt(variance.double() + positional[7])
    if gamma is not None:
        scale = scale * gamma.double()
    shift = -mean.double() * scale if bias is None else (bias.double() - mean.double()) * scale
    if beta is not None:
        shift = shift + beta.double()
    new = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    return new.to(weight.dtype), shift.to(weight.dtype)


REWRITES: tuple[tuple[str, Pass], ...] = (("no-ops of PyTorch", drop_nothing), ("normalisation", norm_into_weights))
