"""Which framework a Step belongs to, told from its inputs and model without importing one that the user did not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from memfit.ir.step import Step

_MARKS = {
    "jax": (("jax", "Array"), ("jax", "ShapeDtypeStruct")),
    "tensorflow": (
        ("tensorflow", "Tensor"),
        ("tensorflow", "TensorSpec"),
        ("tensorflow", "Module"),
        ("keras", "Model"),
        ("tensorflow.types.experimental", "GenericFunction"),
    ),
    "torch": (("torch", "Tensor"), ("torch.nn", "Module")),
}


def framework_of(step: Step) -> str:
    """``torch``, ``jax`` or ``tensorflow``: whose tensors the inputs hold, or whose model it is; ``torch`` where none tells.

    Cost: a walk through the inputs.
    """
    for value in (*leaves(step.inputs), step.model):
        for framework, marks in _MARKS.items():
            kinds = tuple(getattr(sys.modules[m], name) for m, name in marks if hasattr(sys.modules.get(m), name))
            if kinds and isinstance(value, kinds):
                return framework
    return "torch"


def leaves(value: Any) -> Iterator[Any]:
    """What stands in nested tuples, lists and mappings."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from leaves(part)
    else:
        yield value
