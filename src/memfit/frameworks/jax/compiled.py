"""What XLA makes of a JAX function: bytes of arguments, results and temporaries by its own buffer assignment.

These are what the compiled program will ask for (projected by the compiler, nothing runs). On a CPU the default scheduler
orders operations for concurrency and keeps far more alive than the program's order does: recomputation then saves nothing.
``LEAN`` turns it off. It is read once, when JAX first looks for devices; given to a single compilation it has no effect
(seen with JAX 0.10.2).

Cost: one compilation, seconds for a large model.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax._src import xla_bridge

LEAN = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


@dataclass(frozen=True)
class Compiled:
    """``call``: the compiled function; bytes as in the module text. ``aliased``: results that lie over arguments."""

    call: Callable[..., Any]
    arguments: int
    outputs: int
    temporaries: int
    aliased: int

    @property
    def peak(self) -> int:
        """Bytes of all buffers together: what the step holds at its peak, as projected by the compiler."""
        return self.arguments + self.outputs + self.temporaries - self.aliased


def compile_step(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Compiled:
    """``function`` compiled for ``arguments`` (arrays or shapes)."""
    call = jax.jit(function).lower(*arguments).compile()
    found = call.memory_analysis()
    return Compiled(
        call,
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
        found.alias_size_in_bytes,
    )


def schedule_lean() -> bool:
    """Ask XLA, for this process and those it starts, for the schedule that keeps less alive.

    Returns:
        whether it will be: False where JAX looked for its devices before without it.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if LEAN in flags.split():
        return True
    if xla_bridge.backends_are_initialized():
        return False
    os.environ["XLA_FLAGS"] = f"{flags} {LEAN}".strip()
    return True
