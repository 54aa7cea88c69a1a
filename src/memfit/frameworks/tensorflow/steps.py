"""What a Step means in TensorFlow: a concrete function of one whole step, its variables sorted by what they are for.

The model is a Keras model, a ``tf.function``, a ConcreteFunction or a plain function of tensors; inputs are tensors, arrays or
``tf.TensorSpec`` (whose open axes stay open). With a loss the step also differentiates by the model's trainable variables,
and with a Keras optimizer it updates them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from memfit.errors import CaptureError, MemfitError, TargetError
from memfit.frameworks.tensorflow.capture import Captured, capture
from memfit.frameworks.tensorflow.sizes import with_sizes
from memfit.ir.ops.table import facts
from memfit.ir.program import Program
from memfit.ir.step import Step
from memfit.ir.trace import Category


def captured_step(step: Step, target: str) -> Captured:
    """The Program of one whole step, every value with its size.

    Raises:
        TargetError: no TensorFlow step; CaptureError: the step raises while it is traced.
    """
    function = concrete_function(step, target)
    captured = with_sizes(capture(function, target))
    return replace(captured, program=replace(captured.program, meta={
        **captured.program.meta, "categories": _categories(captured, step),
    }))  # fmt: skip


def concrete_function(step: Step, target: str) -> Any:
    """The step, traced. Errors: as ``captured_step``."""
    model = step.model
    if isinstance(model, tf.types.experimental.ConcreteFunction):
        return model
    if not callable(model):
        raise TargetError(target, f"its model is a {type(model).__name__}, not a function", "return a Keras model")
    named = isinstance(step.inputs, dict)
    given = step.inputs if isinstance(step.inputs, tuple | dict) else (step.inputs,)
    specifications = tf.nest.map_structure(_specification, given)
    if not named and _is_keras(model):
        names = [t.name for t in model.inputs or ()]
        if len(specifications) == 1:
            names = ["inputs"]
        if len(names) == len(specifications) and all(isinstance(s, tf.TensorSpec) for s in specifications):
            specifications = tuple(
                tf.TensorSpec(s.shape, s.dtype, s.name or name) for s, name in zip(specifications, names, strict=True)
            )
    train = step.train if step.train is not None else step.loss is not None or step.optimizer is not None
    whole = _training(step, target, named) if train else _inference(model, named)
    try:
        if named and not train:
            return whole.get_concrete_function(**specifications)
        return whole.get_concrete_function(*(specifications.values() if named else specifications))
    except MemfitError:
        raise
    except Exception as error:  # whatever the user's model raises
        raise CaptureError(*_told(error)) from error


def _told(error: Exception) -> tuple[str, str]:
    """(what a model raised, where): AutoGraph begins with "in user code:" and the lines that led there."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [""]
    if lines[0] != "in user code:":
        return f"{type(error).__name__}: {lines[0][:300]}", ""
    places = [re.match(r'File "([^"]+)", line (\d+), in', line) for line in lines]
    own = [f"{found[1]}:{found[2]}" for found in places if found is not None]
    kind = type(error).__name__ + ": "
    said = next((line for line in lines if line.startswith(kind)), kind + lines[-1])
    return said[:300], own[-1] if own else ""


def _specification(value: Any) -> Any:
    if isinstance(value, tf.TensorSpec):
        return value
    tensor = value if tf.is_tensor(value) else tf.convert_to_tensor(value)
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _inference(model: Any, named: bool) -> Any:
    if hasattr(model, "get_concrete_function"):
        return model
    if not _is_keras(model):
        return tf.function(model)
    if named:
        return tf.function(lambda **inputs: model(inputs, training=False))
    return tf.function(lambda *inputs: model(inputs[0] if len(inputs) == 1 else list(inputs), training=False))


def _training(step: Step, target: str, named: bool) -> Any:
    model, loss, optimizer = step.model, step.loss, step.optimizer
    variables = list(getattr(model, "trainable_variables", ()))
    if not variables:
        raise TargetError(target, "its model has no trainable variables", "train a Keras model or a tf.Module")
    if optimizer is not None and hasattr(optimizer, "build") and not getattr(optimizer, "built", False):
        optimizer.build(variables)
    names = list(step.inputs) if named else []

    def run(*inputs: Any) -> Any:
        with tf.GradientTape() as tape:
            given: Any = (
                dict(zip(names, inputs, strict=True)) if named else inputs[0] if len(inputs) == 1 else list(inputs)
            )
            output = model(given, training=True) if _is_keras(model) else model(*inputs)
            value = loss(output) if loss is not None else output
            if getattr(value, "shape", None) != ():
                shape = getattr(value, "shape", type(value).__name__)
                raise TargetError(target, f"its loss is {shape}, not one number", "add a loss to the step")
        gradients = tape.gradient(value, variables)
        if optimizer is None:
            return value, [g for g in gradients if g is not None]
        optimizer.apply_gradients([(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None])
        return value

    return tf.function(run)


def _is_keras(model: Any) -> bool:
    import sys

    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def _categories(captured: Captured, step: Step) -> dict[str, str]:
    """Name of a constant -> its category, by the variables of the optimizer."""
    state = {id(getattr(v, "value", v).handle) for v in _variables(step.optimizer)}
    found = {}
    for name, constant in captured.program.constants.items():
        handle = captured.values.handles.get(constant.reference)
        if handle is not None and id(handle) in state:
            found[name] = Category.OPTIMIZER_STATE.value
    if step.optimizer is None and step.loss is not None:
        found.update(
            (_made_as(captured.program, name), Category.GRADIENTS.value) for name in captured.program.outputs[1:]
        )
    return found


def _made_as(program: Program, name: str) -> str:
    """The value whose bytes ``name`` is another name of."""
    while name in program.producer:
        operation = program.operations[program.producer[name]]
        if facts(operation).view != 0:
            break
        name = operation.inputs[0]
    return name


def _variables(optimizer: Any) -> list[Any]:
    found = getattr(optimizer, "variables", ()) if optimizer is not None else ()
    found = found() if callable(found) else found
    return [v for v in found if hasattr(getattr(v, "value", v), "handle")]


def runner(captured: Captured, applied: Any) -> Callable[..., list[Any]]:
    """``applied`` as a function from arrays to a list of arrays."""

    def call(*arrays: Any) -> list[Any]:
        return [tensor.numpy() for tensor in tf.nest.flatten(applied(*arrays), expand_composites=True)]

    return call
