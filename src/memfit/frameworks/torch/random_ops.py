"""Random fills as functional ops that keep the layout of what they fill.

Functionalisation turns ``x.bernoulli_(p)`` into ``bernoulli.p(x, p)``, whose result is contiguous whatever ``x`` was;
numbers are drawn in memory order, so on a transposed ``x`` other elements would be dropped than in eager mode. These
ops draw into memory laid out like ``like``; they never read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

_library = torch.library.Library("memfit", "DEF")
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {}
IN_PLACE: dict[str, Any] = {}


def _define(name: str, signature: str, in_place: Any, functional: Any) -> None:
    _library.define(f"{name}(Tensor like{signature}) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
    _library.impl(name, lambda like, *args: in_place(torch.empty_like(like), *args), "CompositeExplicitAutograd")
    torch.library.register_fake(f"memfit::{name}", lambda like, *args: torch.empty_like(like), lib=_library)
    op = getattr(torch.ops.memfit, name).default

    def functional_form(like: Any, *args: Any, generator: Any = None) -> Any:
        if generator is not None:
            return NotImplemented
        return op(like, *args)

    DECOMPOSITIONS[functional] = functional_form
    IN_PLACE[str(op)] = in_place


_define("bernoulli", ", float p=0.5", aten.bernoulli_.float, aten.bernoulli.p)
_define("uniform", ", float low=0.0, float high=1.0", aten.uniform_.default, aten.uniform.default)
_define("normal", ", float mean=0.0, float std=1.0", aten.normal_.default, aten.normal_functional.default)
_define("exponential", ", float rate=1.0", aten.exponential_.default, aten.exponential.default)

NAMES = frozenset(IN_PLACE)
