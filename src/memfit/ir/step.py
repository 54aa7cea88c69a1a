"""Step: one training or inference step as its user describes it, before any framework looks at it.

A target function returns a ``Step``, or ``(model, inputs)``, ``(model, inputs, optimizer)``, or a dict with the
field names, so that a script need not import memfit. ``inputs`` is a tensor, a tuple, or a dict of keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from memfit.errors import TargetError


@dataclass(frozen=True)
class Step:
    """One step of a program.

    Attributes:
        model: the module or callable.
        inputs: a tensor, a tuple (positional) or a dict (keyword arguments) for ``model``.
        loss: takes the model's output, returns a scalar; left out, the output itself or its ``.loss`` is the loss.
        optimizer: a ``torch.optim`` optimizer over the model's parameters, or None.
        train: True / False, or None: train when there is a loss or an optimizer.
        autocast: dtype name (``"bfloat16"``) for autocast around forward and loss, or None.
        accumulate: how many times forward and backward run before the optimizer steps, >= 1.
        run: a function of this Step that runs the whole step itself and returns the loss, or None.
    """

    model: Any
    inputs: Any
    loss: Callable[[Any], Any] | None = None
    optimizer: Any = None
    train: bool | None = None
    autocast: str | None = None
    accumulate: int = 1
    run: Callable[[Step], Any] | None = None


def as_step(value: Any, target: str) -> Step:
    """The ``Step`` that a target function's return value means.

    Raises:
        TargetError: the value has none of the forms above.
    """
    if isinstance(value, Step):
        return value
    if isinstance(value, Mapping):
        known = {field.name for field in fields(Step)}
        unknown = sorted(set(value) - known)
        if "model" not in value or "inputs" not in value or unknown:
            raise TargetError(
                target,
                f"its dict needs 'model' and 'inputs'{f', and does not know {unknown}' if unknown else ''}",
                f"allowed names: {', '.join(sorted(known))}",
            )
        return Step(**value)
    if isinstance(value, tuple) and len(value) in (2, 3):
        return Step(model=value[0], inputs=value[1], optimizer=value[2] if len(value) == 3 else None)
    raise TargetError(
        target,
        f"it returned {type(value).__name__}, not a step",
        "return memfit.Step(model=..., inputs=..., loss=..., optimizer=...), (model, inputs), "
        "(model, inputs, optimizer) or a dict with those names",
    )
