"""Capture a whole training or inference step as one flat, functional ATen graph.

Forward, loss and backward run once on fake tensors under ``make_fx``, so the recorded ops are those that eager PyTorch
runs, autograd's order of sums included; a second pass removes mutations (``torch.func.functionalize``), so that any op
can be run again. What stays in place is known by name: buffer write-backs at the end and batch norm's running
statistics. Nothing of the model's size is allocated. Cost: seconds, O(ops).

Where a program cannot be captured (data-dependent control flow, a custom ``Step.run``), ``CaptureError`` says why and
at which line of the user's code; ``fit`` then works on modules instead.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from memfit.errors import CaptureError, MemfitError
from memfit.frameworks.torch import random_ops
from memfit.frameworks.torch.steps import autocast_of, is_training, loss_of
from memfit.frameworks.torch.strided_writes import keep_strides
from memfit.ir.step import Step


@dataclass(frozen=True)
class Capture:
    """A captured step.

    ``module``'s placeholders are the trained parameters, frozen parameters, buffers and input tensors, in that order;
    its outputs are the detached loss (training) or the output leaves (inference), then one gradient (or None) per trained
    parameter. ``names`` label the placeholders; ``training`` tells the two forms apart.
    """

    module: torch.fx.GraphModule
    training: bool
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    buffers: tuple[str, ...]
    input_spec: Any
    input_leaves: tuple[Any, ...]
    output_spec: Any

    @property
    def names(self) -> tuple[str, ...]:
        """Labels of the placeholders, in order."""
        count = sum(isinstance(leaf, torch.Tensor) for leaf in self.input_leaves)
        return self.trained + self.frozen + self.buffers + tuple(f"input {i}" for i in range(count))


def input_tensors(inputs: Any) -> list[torch.Tensor]:
    """The tensors among a step's inputs, in flattening order."""
    return [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]


def capture(step: Step) -> Capture:
    """The step as one flat ATen graph.

    Raises:
        CaptureError: the program cannot be captured; the message names the line.
    """
    if step.run is not None:
        raise CaptureError("the step runs its own loop (Step.run)", hint="fit works on its modules instead")
    if not isinstance(step.model, torch.nn.Module):
        raise CaptureError(f"the model is a {type(step.model).__name__}, not a torch.nn.Module")
    _refuse_hooks(step.model)
    try:
        return _capture(step, compiling=False)
    except CaptureError as first:
        # Models test masks by value in eager mode; told that a compiler looks on, they take a branch without the test.
        try:
            return _capture(step, compiling=True)
        except CaptureError:
            raise first from None


def _refuse_hooks(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_sparse or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise CaptureError(f"parameter {name} is sparse or has a gradient hook")
        if parameter.device.type == "meta":
            raise CaptureError(f"parameter {name} has no memory (device meta)", hint="build the model on a real device")


def _capture(step: Step, compiling: bool) -> Capture:
    model = step.model
    training = is_training(step)
    parameters = dict(model.named_parameters())
    trained = tuple(name for name, value in parameters.items() if value.requires_grad and training)
    frozen = tuple(name for name in parameters if name not in set(trained))
    buffers = tuple(name for name, _ in model.named_buffers())
    leaves, input_spec = pytree.tree_flatten(step.inputs)
    output_spec: list[Any] = [None]

    def flat(*tensors: torch.Tensor) -> list[Any]:
        rest = iter(tensors)
        leaf_parameters = [next(rest).detach().requires_grad_() for _ in trained]
        state = dict(zip(trained, leaf_parameters, strict=True))
        state.update({name: next(rest) for name in frozen})
        state.update({name: next(rest) for name in buffers})
        inputs = pytree.tree_unflatten([next(rest) if isinstance(x, torch.Tensor) else x for x in leaves], input_spec)
        args, kwargs = _arguments(inputs)
        if not training:
            with torch.no_grad(), autocast_of(step):
                output = functional_call(model, state, args, kwargs, tie_weights=True)
            output_leaves, output_spec[0] = pytree.tree_flatten(output)
            return list(output_leaves)
        total: Any = None
        gradients: list[Any] = [None] * len(trained)
        for _ in range(step.accumulate):
            with autocast_of(step):
                loss = loss_of(step, functional_call(model, state, args, kwargs, tie_weights=True))
            if step.accumulate > 1:
                loss = loss / step.accumulate
            fresh = torch.autograd.grad(loss, leaf_parameters, allow_unused=True)
            gradients = [_accumulated(old, new) for old, new in zip(gradients, fresh, strict=True)]
            total = loss.detach() if total is None else total + loss.detach()
        gradients = [_laid_out(g, parameters[name]) for name, g in zip(trained, gradients, strict=True)]
        return [total, *gradients]

    values = [
        *(parameters[name].detach() for name in trained + frozen),
        *(value for _, value in model.named_buffers()),
        *(leaf for leaf in leaves if isinstance(leaf, torch.Tensor)),
    ]
    with _quiet(), _compiling(compiling), _rng_kept():
        try:
            module = keep_strides(make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*values))
            module = make_fx(
                functionalize(module, remove="mutations"),
                random_ops.DECOMPOSITIONS,
                "fake",
                _allow_non_fake_inputs=True,
            )(*values)
        except MemfitError:
            raise
        except Exception as error:
            raise CaptureError(_reason(error), _user_line(error)) from error
    return Capture(module, training, trained, frozen, buffers, input_spec, tuple(leaves), output_spec[0])


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})


def _accumulated(old: Any, new: Any) -> Any:
    if old is None or new is None:
        return new if old is None else old
    return old + new


def _laid_out(gradient: Any, parameter: torch.Tensor) -> Any:
    # AccumulateGrad gives a gradient its parameter's layout, and never lets it share memory.
    if gradient is None or gradient.layout is not torch.strided:
        if gradient is not None:
            raise CaptureError("a gradient is sparse", hint="fit works on modules instead")
        return None
    if gradient.stride() == parameter.stride():
        return gradient
    shape, strides = (
        tuple(parameter.shape),
        parameter.stride(),
    )  # not empty_like: the parameter itself is no tensor of the trace
    return torch.empty_strided(shape, strides, dtype=gradient.dtype, device=gradient.device).copy_(gradient)


@contextlib.contextmanager
def _compiling(on: bool) -> Iterator[None]:
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = on or before
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _rng_kept() -> Iterator[None]:
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _reason(error: Exception) -> str:
    name = type(error).__name__
    text = str(error).strip().splitlines()
    if name in ("DataDependentOutputException", "GuardOnDataDependentSymNode", "DynamicOutputShapeException"):
        return f"its control flow or shapes depend on tensor values ({text[0] if text else name})"
    return f"{name}: {text[0] if text else 'no message'}"


def _user_line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/torch/" not in frame.filename and "/memfit/" not in frame.filename]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""
