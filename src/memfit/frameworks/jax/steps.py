"""What a Step means in JAX: a forward function of trees of arrays, and the whole step that is compiled.

The first input (the entry ``params`` of a dict, else its first) is what a training step differentiates by. An optimizer is
an object with ``init`` and ``update`` as in optax: its state becomes an argument and a result of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from memfit.errors import TargetError
from memfit.ir.step import Step


@dataclass(frozen=True)
class JaxStep:
    """``forward(*inputs)``: the loss, or the output of inference; ``train``: whether it is differentiated."""

    forward: Callable[..., Any]
    inputs: tuple[Any, ...]
    train: bool
    optimizer: Any = None

    def whole(self, forward: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """The function that one step runs, of ``arguments()``; ``forward`` in place of the step's own."""
        chosen = forward or self.forward
        if not self.train:
            return chosen
        gradient = jax.value_and_grad(chosen, allow_int=True)
        if self.optimizer is None:
            return gradient

        def step(state: Any, *inputs: Any) -> Any:
            loss, gradients = gradient(*inputs)
            updates, new_state = self.optimizer.update(gradients, state, inputs[0])
            return loss, jax.tree.map(lambda p, u: jnp.asarray(p + u, p.dtype), inputs[0], updates), new_state

        return step

    def arguments(self) -> tuple[Any, ...]:
        """What ``whole`` takes: the inputs, the optimizer's state before them."""
        if self.optimizer is None or not self.train:
            return self.inputs
        first = self.inputs[0]
        abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(first))
        state = jax.eval_shape(self.optimizer.init, first) if abstract else self.optimizer.init(first)
        return (state, *self.inputs)


def jax_step(step: Step, target: str = "step") -> JaxStep:
    """The Step's functions.

    Raises:
        TargetError: the model is no function, or a training step has no scalar to differentiate.
    """
    if not callable(step.model):
        raise TargetError(
            target, f"its model is a {type(step.model).__name__}, not a function", "return a JAX function"
        )
    if isinstance(step.inputs, dict):
        names = [*(n for n in step.inputs if n == "params"), *(n for n in step.inputs if n != "params")]
        inputs = tuple(step.inputs[name] for name in names)

        def call(*given: Any) -> Any:
            return step.model(**dict(zip(names, given, strict=True)))
    else:
        inputs = step.inputs if isinstance(step.inputs, tuple) else (step.inputs,)
        call = step.model
    train = step.train if step.train is not None else step.loss is not None or step.optimizer is not None
    loss = step.loss
    if train and step.optimizer is not None and not all(hasattr(step.optimizer, name) for name in ("init", "update")):
        what = type(step.optimizer).__name__
        raise TargetError(target, f"its optimizer is a {what} without init and update", "give one of optax's kind")

    def forward(*given: Any) -> Any:
        output = call(*given)
        return loss(output) if loss is not None else output

    forward.__name__ = getattr(step.model, "__name__", "model")
    if train:
        found = jax.tree.leaves(jax.eval_shape(forward, *inputs))
        if len(found) != 1 or found[0].shape != ():
            raise TargetError(
                target, f"its loss is {', '.join(str(f) for f in found[:3])}, not one number", "add a loss to the step"
            )
    return JaxStep(forward, inputs, train, step.optimizer)
