"""Where CPU kernels lay out or size an output differently from PyTorch's own shape functions, or these do not exist.

One function for each such op, entered under the op's overload name. It gets the op and fake arguments and returns fake
outputs, or ``NotImplemented`` where the general answer holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Correction = Callable[[Any, list[Any], dict[str, Any]], Any]
CORRECTIONS: dict[str, Correction] = {}


def _corrects(*names: str) -> Callable[[Correction], Correction]:
    def enter(function: Correction) -> Correction:
        for name in names:
            CORRECTIONS[name] = function
        return function

    return enter
