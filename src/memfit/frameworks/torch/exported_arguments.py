"""Arguments of a call in a ``.pt2`` file: read as hashable templates, filled with values when the call is made again.

    add.Tensor(x, y, alpha=2)     ->  positional (Ref(0), Ref(1)), keywords (("alpha", 2),), inputs ("x", "y")

Lists are tuples of the template ``("list", ...)``; bodies of branches and loops are ``Body``. Equal templates mean equal
calls, so passes compare them as any attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from memfit.frameworks.torch.exported_file import DTYPES

_LAYOUTS = {7: torch.strided}
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
_PLAIN = ("as_int", "as_float", "as_string", "as_bool")
_PLAIN_LISTS = ("as_ints", "as_floats", "as_strings", "as_bools")
_NESTED_LISTS = ("as_int_lists", "as_float_lists")
_SYMBOLS = ("as_sym_int", "as_sym_float", "as_sym_bool")
LIST = "list"


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of an operation's input."""

    index: int


@dataclass(frozen=True, slots=True)
class Body:
    """One of an operation's bodies."""

    index: int


@dataclass(frozen=True, slots=True)
class Word:
    """A text, which must not be taken for the mark of a list."""

    text: str


class Reader:
    """Reads the arguments of one call. ``inputs``: names met, in order; ``bodies``: (name, JSON of the graph)."""

    def __init__(self, resolved: Callable[[str], str]) -> None:
        self._resolved = resolved
        self.inputs: list[str] = []
        self.bodies: list[tuple[str, Mapping[str, Any]]] = []

    def read(self, argument: Mapping[str, Any]) -> Any:
        """The template of one argument.

        Raises:
            ValueError: a kind of argument that calls cannot be made with again.
        """
        kind, value = only_one(argument)
        if kind == "as_none":
            return None
        if kind == "as_string":
            return Word(value)
        if kind in _PLAIN:
            return value
        if kind in _PLAIN_LISTS:
            return (LIST, *(Word(item) if isinstance(item, str) else item for item in value))
        if kind in _NESTED_LISTS:
            return (LIST, *((LIST, *items) for items in value))
        if kind == "as_tensor":
            return self._ref(value["name"])
        if kind == "as_tensors":
            return (LIST, *(self._ref(item["name"]) for item in value))
        if kind in _SYMBOLS:
            return self._symbolic(value)
        if kind in tuple(name + "s" for name in _SYMBOLS):
            return (LIST, *(self._symbolic(item) for item in value))
        if kind == "as_optional_tensor":
            return self._optional(value)
        if kind == "as_optional_tensors":
            return (LIST, *(self._optional(item) for item in value))
        if kind == "as_nested_tensors":
            return (LIST, *((LIST, *(self._ref(item["name"]) for item in items)) for items in value))
        return self._of_torch(kind, value)

    def _of_torch(self, kind: str, value: Any) -> Any:
        if kind == "as_scalar_type":
            return DTYPES[value]
        if kind == "as_memory_format":
            return _FORMATS[value]
        if kind == "as_layout":
            return _LAYOUTS[value]
        if kind == "as_device":
            return (
                torch.device(value["type"], value["index"])
                if value["index"] is not None
                else torch.device(value["type"])
            )
        if kind == "as_complex":
            return complex(value["real"], value["imag"])
        if kind == "as_graph":
            self.bodies.append((value["name"], value["graph"]))
            return Body(len(self.bodies) - 1)
        raise ValueError(f"an argument of the kind {kind}")

    def _ref(self, name: str) -> Ref:
        self.inputs.append(self._resolved(name))
        return Ref(len(self.inputs) - 1)

    def _symbolic(self, value: Mapping[str, Any]) -> Any:
        kind, found = only_one(value)
        return self._ref(found) if kind == "as_name" else found

    def _optional(self, value: Mapping[str, Any]) -> Any:
        kind, found = only_one(value)
        return None if kind == "as_none" else self._ref(found["name"])


def only_one(union: Mapping[str, Any]) -> tuple[str, Any]:
    """The one field of a union that is set."""
    (pair,) = union.items() if len(union) == 1 else [(k, v) for k, v in union.items() if v is not None]
    return pair


def filled(template: Any, values: Sequence[Any], bodies: Sequence[Any] = ()) -> Any:
    """A template with values in the places of inputs."""
    if isinstance(template, Ref):
        return values[template.index]
    if isinstance(template, Body):
        return bodies[template.index]
    if isinstance(template, Word):
        return template.text
    if isinstance(template, tuple) and template and template[0] == LIST:
        return [filled(item, values, bodies) for item in template[1:]]
    return template
