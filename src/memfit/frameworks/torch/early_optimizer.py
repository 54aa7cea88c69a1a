"""Step each parameter as soon as its gradient is final, so that all gradients never stand side by side.

A post-accumulate hook on each parameter runs the user's own optimizer on that parameter alone (``optimizer.alone``
shares its state), and drops the gradient. For optimizers whose update of a parameter looks at no other parameter this
gives the same bits in any order. Not with accumulated gradients (final only in the last round, where it would save
little), nor where the user's code runs the loop itself: it may look at all gradients, to clip them for instance.
LOMO (Lv et al. 2023, arXiv:2306.09782) is the same idea for SGD.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from memfit.frameworks.torch import optimizer as optimizers
from memfit.frameworks.torch.steps import autocast_of, call_model, is_training, loss_of
from memfit.ir.step import Step


def may_step_early(step: Step) -> bool:
    """Whether parameters of this step may be stepped one at a time during backward."""
    return (
        step.run is None
        and step.optimizer is not None
        and step.accumulate == 1
        and is_training(step)
        and optimizers.steps_parameters_alone(step.optimizer)
    )


def stepping_early(step: Step) -> Any:
    """``run_step`` with the optimizer inside backward; returns the detached loss."""
    with optimizer_in_backward(step.optimizer):
        with autocast_of(step):
            loss = loss_of(step, call_model(step.model, step.inputs))
        loss.backward()
        return loss.detach()


@contextlib.contextmanager
def optimizer_in_backward(optimizer: Any) -> Iterator[None]:
    """Gradients that become final inside are used and dropped at once; those left at the end are stepped then."""
    groups = optimizers.group_of(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def final(parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        if gradient is not None:
            with torch.no_grad():
                optimizers.step_alone(optimizer, groups, parameter, gradient)

    handles = [
        parameter.register_post_accumulate_grad_hook(final)
        for parameter in parameters
        if parameter.requires_grad and parameter.is_leaf
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for parameter in parameters:
        final(parameter)
        parameter.grad = None
