"""Which framework a Step belongs to, told from its inputs and model without importing one that the user did not."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import CodeType, ModuleType
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

_PACKAGES = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow", "keras": "tensorflow"}


def framework_of(step: Step) -> str:
    """``torch``, ``jax`` or ``tensorflow``: whose tensors the inputs hold, whose model it is, or what a plain function
    on NumPy arrays calls; ``torch`` where none tells.

    Cost: a walk through the inputs.
    """
    for value in (*leaves(step.inputs), step.model):
        for framework, marks in _MARKS.items():
            kinds = tuple(getattr(sys.modules[m], name) for m, name in marks if hasattr(sys.modules.get(m), name))
            if kinds and isinstance(value, kinds):
                return framework
    called = {_PACKAGES[root] for root in packages_used(step.model) if root in _PACKAGES}
    return called.pop() if len(called) == 1 else "torch"


def packages_used(function: Any) -> frozenset[str]:
    """Top packages of the global and enclosed values that a function's code names, and of those that such functions name.

    Cost: a walk through code objects of the function's own module, each once.
    """
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [function]
    while waiting:
        current: Any = waiting.pop()
        current = inspect.unwrap(current) if callable(current) else None
        current = current.func if isinstance(current, functools.partial) else getattr(current, "__func__", current)
        code = getattr(current, "__code__", None)
        if code is None or id(code) in seen:
            continue
        seen.add(id(code))
        named = getattr(current, "__globals__", {})
        values = [named[name] for name in _names_in(code) if name in named]
        values += [cell.cell_contents for cell in current.__closure__ or () if cell.cell_contents is not current]
        for value in values:
            home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            found.add(str(home).partition(".")[0])
            if home == current.__module__ and callable(value):
                waiting.append(value)
    return frozenset(found)


def _names_in(code: CodeType) -> Iterator[str]:
    """Names that code and the functions written inside it read."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


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
