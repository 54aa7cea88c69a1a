"""Operations of a Program put into a TensorFlow graph, one by one: for running them, and for asking what sizes they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

from memfit.frameworks.tensorflow.capture import Message
from memfit.ir.program import Operation


def added(operation: Operation, inputs: list[Any], changed: Mapping[str, Any] | None = None) -> list[Any]:
    """The outputs of ``operation`` in the default graph; its attributes are those it was captured with.

    Args:
        inputs: a tensor of the default graph for each input.
        changed: AttrValues in place of captured ones.

    Raises:
        ValueError, tf.errors.OpError: TensorFlow refuses it.
    """
    graph = ops.get_default_graph()
    attributes = {key: value.value for key, value in operation.attributes if isinstance(value, Message)}
    attributes.update(changed or {})
    made = graph._create_op_internal(
        operation.kind.partition(".")[2], [tf.convert_to_tensor(t) if t.dtype != tf.resource else t for t in inputs],
        attrs=attributes, name=_graph_name(operation.label),
    )  # fmt: skip
    return list(made.outputs)


def _graph_name(label: str) -> str | None:
    clean = "".join(c if c.isalnum() or c in "_./-" else "_" for c in label)
    return clean if clean and (clean[0].isalnum() or clean[0] == ".") else None
