"""What a model returns, taken apart into tensors and put together again, objects that pytree does not know included.

A decoder returns its cache beside its logits: an object whose attributes, lists of layers in it, hold tensors. Such a
leaf is walked through attributes, lists, tuples and dicts; each time the output is put together it is copied as far as
tensors are reached, so that two outputs share no container.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

_PLAIN = (torch.Tensor, bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, type)


@dataclass(frozen=True)
class OutputForm:
    """``spec`` of the pytree; ``objects``: for each of its leaves None, or the object it is and how many tensors it holds."""

    spec: Any
    objects: tuple[tuple[Any, int] | None, ...]

    def together(self, leaves: Sequence[Any]) -> Any:
        """The output with these leaves, in the order of ``taken_apart``."""
        rest = iter(leaves)
        whole = []
        for known in self.objects:
            if known is None:
                whole.append(next(rest))
            else:
                given = iter([next(rest) for _ in range(known[1])])
                whole.append(_mapped(known[0], lambda old, given=given: next(given), {}))  # type: ignore[misc]
        return pytree.tree_unflatten(whole, self.spec)


def taken_apart(output: Any) -> tuple[list[Any], OutputForm]:
    """The leaves of an output, tensors inside of objects in place of the object, and how to put it together."""
    leaves, spec = pytree.tree_flatten(output)
    flat: list[Any] = []
    objects: list[tuple[Any, int] | None] = []
    for leaf in leaves:
        found: list[torch.Tensor] = []
        if not isinstance(leaf, _PLAIN):
            _mapped(leaf, lambda tensor, found=found: found.append(tensor), {})  # type: ignore[misc]
        if found:
            flat += found
            objects.append((leaf, len(found)))
        else:
            flat.append(leaf)
            objects.append(None)
    return flat, OutputForm(spec, tuple(objects))


def _mapped(value: Any, change: Callable[[torch.Tensor], Any], known: dict[int, Any]) -> Any:
    """``value`` with each tensor in it replaced; containers on the way to one are copied, the rest is shared."""
    if isinstance(value, torch.Tensor):
        if id(value) not in known:
            known[id(value)] = change(value)
        return known[id(value)]
    if isinstance(value, _PLAIN) or callable(value):
        return value
    if id(value) in known:
        return known[id(value)]
    known[id(value)] = value  # of a circle, the first one met
    if isinstance(value, dict):
        made: Any = copy.copy(value)
        for key, item in value.items():
            made[key] = _mapped(item, change, known)
    elif isinstance(value, list):
        made = [_mapped(item, change, known) for item in value]
    elif isinstance(value, tuple):
        items = [_mapped(item, change, known) for item in value]
        made = type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    elif hasattr(value, "__dict__"):
        made = copy.copy(value)
        for key, item in vars(value).items():
            made.__dict__[key] = _mapped(item, change, known)
    else:
        return value
    known[id(value)] = made
    return made
