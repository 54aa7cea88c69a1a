"""Reassociating lever: run the batch in parts, one after another, and sum the gradients.

Activations shrink with the part; the result is that of the whole batch up to the order of sums, if the loss is a mean
over rows or over labels that count. How the parts are weighted is found by running both in the present state::

    rows      part rows / rows                        mean over the batch
    labels    labels that are not ignored, as given   cross entropy with ignore_index=-100 (BERT, T5, Whisper)
    shifted   the same, first column left out         next-token losses (GPT-2, Llama)

Refused with the reason: normalisation over the batch (other statistics), random numbers drawn (drawn in another order),
losses that close over the whole batch, and whatever else makes gradients differ beyond ``TOLERANCE``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from memfit.frameworks.torch.replay_state import RandomState
from memfit.frameworks.torch.steps import autocast_of, call_model, is_training, loss_of
from memfit.ir.step import Step

WEIGHTS = ("rows", "labels", "shifted")
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Comparison:
    """How micro-batches compare with the whole batch. ``refused``: why they are not the same, or empty.

    ``error``: largest relative difference (2-norm) of a parameter's gradient.
    """

    weights: str
    error: float
    refused: str = ""


def rows_of(inputs: Any) -> int:
    """The batch: the leading dimension that most input tensors share; 0 where there is none."""
    leading = [leaf.shape[0] for leaf in _tensors(inputs) if leaf.dim() > 0]
    return max(set(leading), key=lambda n: (leading.count(n), n)) if leading else 0


def split_of(step: Step, parts: int, weights: str = "rows") -> list[tuple[Any, float]]:
    """``parts`` inputs of (nearly) equal rows, as views of the whole, each with the weight of its loss.

    Args:
        step: the step; tensors of its inputs whose leading dimension is the batch are split, all else is shared.
        parts: from 1 to the rows of the batch.
        weights: one of ``WEIGHTS``.
    """
    rows = rows_of(step.inputs)
    size = -(-rows // parts)
    spans = [(start, min(start + size, rows)) for start in range(0, rows, size)]

    def cut(leaf: Any, start: int, stop: int) -> Any:
        split = isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[0] == rows
        return leaf[start:stop] if split else leaf

    pieces = [pytree.tree_map(lambda leaf, a=a, b=b: cut(leaf, a, b), step.inputs) for a, b in spans]
    if weights == "rows":
        return [(piece, (b - a) / rows) for piece, (a, b) in zip(pieces, spans, strict=True)]
    counts = [_counted(piece, shifted=weights == "shifted") for piece in pieces]
    return [(piece, count / max(1, sum(counts))) for piece, count in zip(pieces, counts, strict=True)]


def _labels(inputs: Any) -> torch.Tensor | None:
    found = inputs.get("labels") if isinstance(inputs, dict) else None
    return found if isinstance(found, torch.Tensor) and not found.dtype.is_floating_point and found.dim() > 1 else None


def _counted(inputs: Any, shifted: bool) -> int:
    labels = _labels(inputs)
    if labels is None:
        return 1
    return int(((labels[:, 1:] if shifted else labels) != _IGNORED).sum())


def run_micro_batches(step: Step, parts: list[tuple[Any, float]]) -> Any:
    """One training step over the parts; returns the detached loss of the whole batch."""
    if step.optimizer is None and isinstance(step.model, nn.Module):
        step.model.zero_grad(set_to_none=True)
    total = _accumulated(step, parts)
    if step.optimizer is not None:
        step.optimizer.step()
        step.optimizer.zero_grad(set_to_none=True)
    return total


def _accumulated(step: Step, parts: list[tuple[Any, float]]) -> torch.Tensor:
    total = None
    for _ in range(step.accumulate):
        for inputs, weight in parts:
            if weight == 0:
                continue
            with autocast_of(step):
                loss = loss_of(step, call_model(step.model, inputs))
            if weight != 1 or step.accumulate > 1:
                loss = loss * (weight / step.accumulate)
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
            del loss
    assert total is not None
    return total


def why_not(step: Step) -> str:
    """Why this step cannot run in micro-batches, from its look alone; empty where it may."""
    if step.run is not None:
        return "the step runs its own loop"
    if not is_training(step):
        return "it is an inference step"
    if rows_of(step.inputs) < 2:
        return "its inputs share no leading dimension of at least 2"
    if isinstance(step.model, nn.Module):
        for name, module in step.model.named_modules():
            if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
                return f"{name} ({type(module).__name__}) normalises over the batch"
    return ""


def compared(step: Step, parts: int, *, other_random_numbers: bool = False) -> Comparison:
    """Run the whole batch and the parts, both without the optimizer, and compare loss and gradients.

    The caller puts the step's state back. Cost: up to four forward and backward passes, and a copy of the gradients.

    Args:
        other_random_numbers: compare also where random numbers are drawn; the difference then is that of two draws.
    """
    refused = why_not(step)
    if refused:
        return Comparison("rows", float("inf"), refused)
    bare = replace(step, optimizer=None, train=True)
    parameters = [p for p in step.model.parameters() if p.requires_grad]
    before = [p.grad for p in parameters]
    try:
        start = RandomState.now()
        whole_loss, whole = _gradients(bare, [(step.inputs, 1.0)], parameters)
        if start.drawn() is not None and not other_random_numbers:
            return Comparison(
                "rows", float("inf"), "it draws random numbers (dropout), in another order than the whole batch"
            )
        best = Comparison("rows", float("inf"), "no gradients")
        for weights in _worth_trying(step.inputs):
            start.restore()
            try:
                loss, gradients = _gradients(bare, split_of(step, parts, weights), parameters)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                return Comparison(weights, float("inf"), f"a part of the batch does not run: {str(error)[:200]}")
            worst = max(_difference(whole, gradients), float((loss - whole_loss).abs() / (whole_loss.abs() + 1e-12)))
            if worst < best.error:
                best = Comparison(weights, worst)
        limit = tolerance(step)
        if best.error > limit and not other_random_numbers:
            return replace(best, refused=f"gradients differ by {best.error:.2g} (relative), more than {limit:g}")
        return best
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


def _worth_trying(inputs: Any) -> tuple[str, ...]:
    labels = _labels(inputs)
    return WEIGHTS if labels is not None and bool((labels == _IGNORED).any()) else WEIGHTS[:1]


def tolerance(step: Step) -> float:
    """Largest relative difference of a gradient that another order of sums explains, by the coarsest dtype in use."""
    kinds = {p.dtype for p in step.model.parameters() if p.requires_grad}
    kinds |= {getattr(torch, step.autocast)} if step.autocast else set()
    return max((TOLERANCE.get(kind, 1e-4) for kind in kinds), default=1e-4)


def difference_under(step: Step, context: Callable[[], contextlib.AbstractContextManager[Any]]) -> float:
    """Largest relative difference of loss and gradients between the step and the step inside ``context``.

    Both run from the same random state, without the optimizer; infinite where the step does not run inside. The caller
    puts the step's state back. Cost: two forward and backward passes, and a copy of the gradients.
    """
    bare = replace(step, optimizer=None, train=True)
    parameters = [p for p in step.model.parameters() if p.requires_grad]
    before = [p.grad for p in parameters]
    start = RandomState.now()
    try:
        whole_loss, whole = _gradients(bare, [(step.inputs, 1.0)], parameters)
        start.restore()
        with context():
            loss, gradients = _gradients(bare, [(step.inputs, 1.0)], parameters)
    except (RuntimeError, ValueError, TypeError):
        return float("inf")
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
    return max(_difference(whole, gradients), float((loss - whole_loss).abs() / (whole_loss.abs() + 1e-12)))


def _gradients(
    step: Step, parts: list[tuple[Any, float]], parameters: list[nn.Parameter]
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    for parameter in parameters:
        parameter.grad = None
    loss = _accumulated(step, parts)
    found = [parameter.grad for parameter in parameters]
    return loss, found


def _difference(whole: list[torch.Tensor | None], parts: list[torch.Tensor | None]) -> float:
    """Largest 2-norm of a difference, relative to the gradient's own norm or a thousandth of the largest."""
    norms = [0.0 if g is None else float(g.float().norm()) for g in whole]
    floor = max(norms, default=0.0) * 1e-3 + 1e-30
    worst = 0.0
    for norm, a, b in zip(norms, whole, parts, strict=True):
        if a is None or b is None:
            worst = max(worst, 0.0 if a is None and b is None else float("inf"))
        else:
            worst = max(worst, float((a.float() - b.float()).norm()) / max(norm, floor))
    return worst


def _tensors(inputs: Any) -> Iterator[torch.Tensor]:
    yield from (leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor))
