"""Run a Step as its user would, in eager PyTorch, with marks at the phase boundaries.

The one definition of "a step" that predict traces, profile measures, and fit must reproduce bit for bit::

    for each of ``accumulate``:  output = model(inputs) ; loss = loss(output) ; (loss / accumulate).backward()
    optimizer.step() ; optimizer.zero_grad(set_to_none=True)

Without an optimizer a training step leaves its gradients in ``.grad`` and starts by dropping the ones it finds there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from memfit.errors import TargetError
from memfit.frameworks.which import framework_of
from memfit.ir.step import Step

_NAMES = {"jax": "JAX", "tensorflow": "TensorFlow"}


def is_training(step: Step) -> bool:
    """Whether the step computes gradients: ``train`` where given, else: it has a loss or an optimizer."""
    return step.train if step.train is not None else step.loss is not None or step.optimizer is not None


def call_model(model: Any, inputs: Any) -> Any:
    """``model`` on a tensor, a tuple (positional) or a dict (keywords)."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def loss_of(step: Step, output: Any) -> torch.Tensor:
    """The scalar to differentiate.

    Raises:
        TargetError: there is no scalar loss to train on.
    """
    if step.loss is not None:
        loss = step.loss(output)
    elif isinstance(output, torch.Tensor):
        loss = output
    else:
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise TargetError(
            "step", f"it is asked to train and has no scalar loss (got {got})",
            "give Step(loss=...), pass labels in inputs, or leave out the optimizer for inference",
        )  # fmt: skip
    if not loss.requires_grad:
        raise TargetError("step", "its loss does not require gradients", "does any parameter have requires_grad=True?")
    return loss.reshape(()) if loss.dim() else loss


def autocast_of(step: Step) -> contextlib.AbstractContextManager[Any]:
    """The autocast context of a step (nothing where it has none)."""
    if step.autocast is None:
        return contextlib.nullcontext()
    parameter = next(step.model.parameters(), None) if isinstance(step.model, torch.nn.Module) else None
    kind = parameter.device.type if parameter is not None and parameter.device.type != "meta" else "cpu"
    return torch.autocast(kind, dtype=getattr(torch, step.autocast))


def run_step(step: Step, mark: Callable[[str], None] = lambda phase: None) -> Any:
    """Run one step; returns the detached loss (training) or the output (inference).

    ``mark`` is called with ``forward``, ``backward``, ``optimizer``, ``between`` as each phase begins.

    Raises:
        TargetError: the step is another framework's, whose memory nothing here would see.
    """
    if not isinstance(step.model, torch.nn.Module) and (framework := framework_of(step)) != "torch":
        raise TargetError(
            "step", f"it is a step of {_NAMES[framework]}, and what is measured or linted here is PyTorch's",
            "`memfit predict`, `plan`, `optimize` and (of JAX) `fit` take it",
        )  # fmt: skip
    if step.run is not None:
        mark("forward")
        result = step.run(step)
        mark("between")
        return result
    if not is_training(step):
        mark("forward")
        with torch.no_grad(), autocast_of(step):
            output = call_model(step.model, step.inputs)
        mark("between")
        return output
    if step.optimizer is None and isinstance(step.model, torch.nn.Module):
        step.model.zero_grad(set_to_none=True)
    if isinstance(step.optimizer, torch.optim.LBFGS):
        raise TargetError(
            "step", "its optimizer LBFGS calls a closure that runs the model again",
            "give Step(run=...): a function of the step that calls optimizer.step(closure)",
        )  # fmt: skip
    total = None
    for _ in range(step.accumulate):
        mark("forward")
        with autocast_of(step):
            loss = loss_of(step, call_model(step.model, step.inputs))
        if step.accumulate > 1:
            loss = loss / step.accumulate
        mark("backward")
        loss.backward()
        total = loss.detach() if total is None else total + loss.detach()
        del loss
    if step.optimizer is not None:
        mark("optimizer")
        step.optimizer.step()
        step.optimizer.zero_grad(set_to_none=True)
    mark("between")
    return total
