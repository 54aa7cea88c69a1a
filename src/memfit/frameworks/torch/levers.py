"""Levers that change what is computed, as changes of the Step; bit-exact levers live in the schedule instead.

``options`` are plain data (they go into the recipe): ``micro_batches``: n;
``offload`` and ``optimizer_state`` are for ``FittedStep``, which moves bytes and changes no step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memfit.errors import TraceError
from memfit.ir.step import Step

SCHEDULED = ("offload", "optimizer_state")


def with_levers(step: Step, options: dict[str, Any]) -> Step:
    """``step`` under ``options``.

    Raises:
        TraceError: an option that this memfit does not know.
    """
    for name, value in options.items():
        if name == "micro_batches":
            step = replace(step, micro_batches=int(value))
        elif name not in SCHEDULED:
            raise TraceError("the recipe", f"unknown lever option {name!r}")
    return step
