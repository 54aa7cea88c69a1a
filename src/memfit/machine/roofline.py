"""The roofline of a machine: the least time of an operation by its arithmetic and by its bytes (Williams et al., 2009).

An operation reads its tensors once from the innermost level that holds them all: what fits a cache moves at its speed.
``flops`` and the bandwidth of memory are those of all threads that the program uses, measured by the same library; the
caches' bandwidth is one core's, times the threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from memfit.machine.spec import Machine

CALL_SECONDS = 30e-6
"""Operations below this that are far from both limits cost what calling them costs."""


@dataclass(frozen=True)
class Roofline:
    """Limits of this machine: floating point operations a second, and bytes a second by level (bytes held, bandwidth)."""

    flops: float
    levels: tuple[tuple[str, int, float], ...]
    memory: float

    def bandwidth(self, moved: int) -> float:
        """Bytes a second for an operation over ``moved`` bytes."""
        return next((speed for _, size, speed in self.levels if moved <= size), self.memory)

    def floor(self, moved: int, flops: float) -> float:
        """The least seconds of an operation."""
        return max(moved / self.bandwidth(moved), flops / self.flops)

    def bound(self, moved: int, flops: float, seconds: float) -> str:
        """What limits an operation that took ``seconds``: "memory", "compute", or "call" (its own overhead)."""
        if not moved or (seconds < CALL_SECONDS and self.floor(moved, flops) < 0.25 * seconds):
            return "call"
        return "memory" if moved / self.bandwidth(moved) >= flops / self.flops else "compute"

    @property
    def ridge(self) -> float:
        """Operations per byte of memory above which arithmetic is the limit."""
        return self.flops / self.memory


def roofline_of(machine: Machine, flops: float, memory: float, threads: int) -> Roofline:
    """The roofline of a machine whose arithmetic and memory bandwidth with ``threads`` threads were measured."""
    levels = []
    for level in machine.caches:
        size = min(level.bytes, level.measured_bytes[1]) if level.measured_bytes else level.bytes
        speed = level.bandwidth * threads if level.bandwidth else 0.0
        if speed > memory:
            levels.append((level.name, size * (threads if level.shared == 1 else 1), speed))
    return Roofline(flops, tuple(levels), memory)
