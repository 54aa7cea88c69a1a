"""What a variant of a kernel costs on a machine, projected: arithmetic of its innermost loop, plus lines between levels.

Arithmetic: an innermost loop whose every access moves by one element or not at all runs on vectors; a sum into one register
waits for the addition before it; other strides load one element at a time. Lines: each miss costs what the next level takes
for a line, by bandwidth where lines come in order and by a part of its latency where they do not. A model to rank variants by,
not to promise times: times are measured (``memfit.fitting.timed_kernel``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from memfit.analyses.cache_misses import Misses
from memfit.analyses.footprints import Footprints
from memfit.ir.kernel import Kernel, Placed, Reference, Variant, arrays_of, depth_of, loops_of, sums_in_memory
from memfit.machine.cache import CacheLevel, Hierarchy
from memfit.machine.spec import Machine

CYCLE_NS = 0.29
LANES = 8
ADD_CYCLES = 4.0
LOOP_CYCLES = 3.0
UNROLLED = 4
FORWARD_CYCLES = 5.0
CHAIN = 24
"""Iterations that a processor looks ahead, two threads sharing it: sums shorter than that overlap with the next ones."""
ALIAS, ALIAS_CYCLES = 4096, 3.5
"""Processors compare the low 12 bits of a load's and an earlier store's address; where they meet, the load waits."""
PAGES = 64
"""Pages whose addresses a processor has at hand where nothing is measured."""
PAGE_NS = 0.25
PAGES_AT_ONCE = 8.0
OVERLAP = 6.0
"""Misses of unordered lines that a processor has under way at once."""
_LATENCY = (1.2, 3.8, 14.0, 100.0)
_BANDWIDTH = (2e11, 8e10, 4e10, 1.5e10)


@dataclass(frozen=True)
class Cost:
    """Projected seconds of a variant: ``arithmetic`` of its loops, ``lines`` moved between levels."""

    arithmetic: float
    lines: float

    @property
    def seconds(self) -> float:
        """Both, as they overlap: the longer one counts most."""
        return math.hypot(self.arithmetic, self.lines)


def stride(reference: Reference, variable: str, steps: tuple[int, ...]) -> int:
    """Bytes by which a reference moves with a loop."""
    return sum(step * c for s, step in zip(reference[1], steps, strict=True) for name, c in s.parts if name == variable)


def cost_of(kernel: Kernel, variant: Variant, misses: Misses, machine: Machine) -> Cost:
    """The cost of a variant whose misses are known."""
    lines = line_seconds(kernel, variant, misses, machine) + page_seconds(kernel, variant, machine)
    return Cost(arithmetic_seconds(kernel, variant), lines)


def page_seconds(kernel: Kernel, variant: Variant, machine: Machine) -> float:
    """Seconds of finding pages that are not at hand, by their footprints."""
    entries, cost = PAGES, PAGE_NS
    if machine.tlb:
        entries, cost = machine.tlb[0].entries, machine.tlb[0].miss_ns / PAGES_AT_ONCE
    pages = Hierarchy((CacheLevel("pages", entries * machine.page_bytes, entries, machine.page_bytes),))
    return Footprints(kernel, pages).misses(variant)[0] * cost * 1e-9


def arithmetic_seconds(kernel: Kernel, variant: Variant) -> float:
    """Seconds of the loops with every line in the first level and every page at hand."""
    loops = tuple(loop for loop in loops_of(kernel, variant) if loop.trips > 1) or loops_of(kernel, variant)
    arrays = arrays_of(kernel, variant)
    item = arrays[kernel.write[0]].item
    lanes = LANES * 4 / item
    taps = 1
    while (
        len(loops) > 1 and taps * loops[-1].trips <= UNROLLED
    ):  # a compiler writes these out: the loop around is the inner one
        taps *= loops[-1].trips
        loops = loops[:-1]
    inner, position = loops[-1], len(loops)
    moving = [r for r in kernel.reads if depth_of(r, loops) >= position] or list(kernel.reads)
    loads = [abs(stride(r, inner.variable, arrays[r[0]].steps())) for r in moving]
    written = abs(stride(kernel.write, inner.variable, arrays[kernel.write[0]].steps()))
    in_register = depth_of(kernel.write, loops) < position
    straight = all(s in (0, item) for s in loads) and (in_register or written == item)
    count = taps * len(loads) + (0 if in_register else 1 + (1 if sums_in_memory(kernel, loops) else 0))
    if in_register and kernel.reductions:
        chain = math.prod(loop.trips for loop in loops[depth_of(kernel.write, loops) :]) * taps
        body = taps * max(ADD_CYCLES * chain / (chain + CHAIN), len(loads) / 2.0)
    elif straight:
        body = max(count / 2.0, 1.0) / lanes
    else:
        body = max(count / 2.0, 1.0)
        if not in_register and written and sums_in_memory(kernel, loops):
            apart = ALIAS // math.gcd(ALIAS, written)
            body = max(body, ALIAS_CYCLES) if inner.trips > apart else body
    start = LOOP_CYCLES + (inner.trips % lanes if straight and not in_register else 0.0)
    whole = inner.trips * body + start
    around = loops[-2].of if len(loops) > 1 else ""
    if not in_register and around in kernel.reductions:  # the next pass waits for the sums that this one has stored
        whole = max(whole, FORWARD_CYCLES)
    return kernel.executions() / (taps * inner.trips) * whole * CYCLE_NS * 1e-9


def line_seconds(kernel: Kernel, variant: Variant, misses: Misses, machine: Machine) -> float:
    """Seconds of moving the missing lines, level by level."""
    loops = loops_of(kernel, variant)
    ordered = _ordered(kernel, variant, loops)
    total = 0.0
    for number, level in enumerate(misses.levels):
        latency, bandwidth = behind(machine, number)
        for array, count in level.by_array.items():
            quick = misses.line / bandwidth
            total += count * (quick if ordered.get(array, True) else max(quick, latency * 1e-9 / OVERLAP))
    return total


def behind(machine: Machine, number: int) -> tuple[float, float]:
    """Latency (ns) and bandwidth (bytes a second) of what serves misses of level ``number``; typical where not measured."""
    levels = machine.levels
    level = levels[number + 1] if number + 1 < len(levels) else None
    place = min(number + 1, 3)
    latency = level.latency_ns if level is not None and level.latency_ns else _LATENCY[place]
    bandwidth = level.bandwidth if level is not None and level.bandwidth else _BANDWIDTH[place]
    return latency, bandwidth


def _ordered(kernel: Kernel, variant: Variant, loops: tuple[Placed, ...]) -> dict[str, bool]:
    """Arrays whose innermost moving loop walks lines in order, which processors fetch ahead."""
    arrays = arrays_of(kernel, variant)
    found: dict[str, bool] = {}
    for reference in (*kernel.reads, kernel.write):
        for loop in reversed(loops):
            step = abs(stride(reference, loop.variable, arrays[reference[0]].steps()))
            if loop.trips > 1 and step:
                found[reference[0]] = found.get(reference[0], True) and step <= 64
                break
    return found
