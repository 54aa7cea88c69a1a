"""What XLA makes of a JAX function: bytes of arguments, results and temporaries by its own buffer assignment.

These are what the compiled program will ask for (projected by the compiler, nothing runs). On a CPU the default scheduler
orders operations for concurrency and keeps far more alive than the program's order does: recomputation then saves nothing.
``LEAN`` asks one compilation for the order that keeps little alive (a user gives it to ``jax.jit`` as ``compiler_options``).
The older switch ``xla_cpu_enable_concurrency_optimized_scheduler`` has no effect there, only in the environment.

Cost: one compilation, seconds for a large model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

LEAN = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


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


def compile_step(function: Callable[..., Any], arguments: tuple[Any, ...], *, lean: bool = False) -> Compiled:
    """``function`` compiled for ``arguments`` (arrays or shapes); ``lean``: under the schedule of ``LEAN``, on a CPU."""
    lowered = jax.jit(function).lower(*arguments)
    call = lowered.compile(compiler_options=LEAN if lean and can_be_lean() else None)
    found = call.memory_analysis()
    return Compiled(
        call,
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
        found.alias_size_in_bytes,
    )


def can_be_lean() -> bool:
    """Whether ``LEAN`` means anything to the compiler of the default device."""
    return jax.default_backend() == "cpu"
