"""Measures this machine's hierarchy: latency over working sets, where it steps, ways, bandwidth, TLB, first touch.

What decides where a level ends:
  L1    latency at 1 KiB steps leaves the plateau; how many lines a page apart still hit are its ways; both must fit together
  L2    no edge, as pages lie anywhere: the size at which latency is half way between the plateau and that of twice the size
  L3    shared with others, known or not: an interval, from where latency leaves L3's to where it is memory's
Every point is the best of many windows of some microseconds in random order (Molka et al. 2009 for the chase), so that another
program on the processor delays an answer and does not change it. The system's word is compared afterwards, not used before.
Cost: 1 to 2 s.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable

from memfit import _core
from memfit.errors import MachineError
from memfit.machine.spec import TYPICAL_WAYS, Machine, MemoryLevel, TlbLevel
from memfit.machine.system import SystemCache, cpu_name, numa_nodes, page_sizes, processors_here, system_caches

KIB = 1024
_BUFFER = 96 << 20
_WINDOW = 0.008
Progress = Callable[[str, int | None, int | None], None]


class _Chase:
    """Latency over working sets, every size measured once and again where it matters."""

    def __init__(self, probe: _core.MemoryProbe) -> None:
        self.probe = probe
        self.points: dict[int, float] = {}

    def at(self, size: int, seconds: float = _WINDOW, again: int = 1) -> float:
        """Best nanoseconds a load over ``size`` bytes; ``again``: other random orders to try."""
        size = max(size // 64, 2) * 64
        for number in range(again):
            found = self.probe.chase(size // 64, 64, 0, seconds / again, size + number)[0]
            self.points[size] = min(found, self.points.get(size, found))
        return self.points[size]


def measure_machine(progress: Progress | None = None, told: tuple[SystemCache, ...] | None = None) -> Machine:
    """This machine, measured and held against the system's word.

    Args:
        progress: told what is measured.
        told: the system's word; None: ask it.

    Raises:
        MachineError: memory for the measurement is not to be had.
    """
    start = time.perf_counter()
    say = progress or (lambda text, done, total: None)
    probe = _core.MemoryProbe(_BUFFER, True)
    if not probe.ok():
        raise MachineError("this machine", f"{_BUFFER} bytes to measure with are not to be had", "free some memory")
    told = system_caches() if told is None else told
    by_name = {cache.name: cache for cache in told}
    chase = _Chase(probe)
    say("L1", None, None)
    first, ways, plateau = _first(chase, probe)
    say("L2", None, None)
    second, second_reach, second_plateau = _second(chase, first)
    say("L3 and memory", None, None)
    third, third_plateau, memory_ns = _third(chase, second)
    say("bandwidth", None, None)
    inside = [
        first // 2,
        int((first * second) ** 0.5),
        min(max(2 * second, third[0] // 2), 16 << 20) if third else 0,
        _BUFFER,
    ]
    rates = [[probe.stream(size, kind, 0.012)[0] * 1e9 if size else 0.0 for kind in range(3)] for size in inside]
    notes: list[str] = []
    line = told[0].line if told else 64
    levels = [
        _judged("L1", (first - KIB, first + KIB), ways, plateau, rates[0], by_name.get("L1"), line, notes),
        _judged("L2", second_reach, None, second_plateau, rates[1], by_name.get("L2"), line, notes),
    ]
    if third:
        levels.append(_shared("L3", third, third_plateau, rates[2], by_name.get("L3"), line, notes))
    for cache in told:
        if cache.name not in {level.name for level in levels}:
            notes.append(f"the system names {cache.name} of {cache.bytes} bytes, which no latency shows")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    levels.append(
        MemoryLevel(
            "memory", total, None, line, round(memory_ns, 1), round(rates[3][0]), round(rates[3][1]), round(rates[3][2])
        )
    )
    say("pages", None, None)
    page, huge, policy = page_sizes()
    tlb = _tlb(page)
    small, large = (_core.MemoryProbe.first_touch(16 << 20, kind) for kind in (False, True))
    if not told:
        notes.append("the system says nothing of its caches: every figure is measured alone")
    return Machine(
        cpu_name(), tuple(levels), "measured", page, huge, policy, numa_nodes(), tlb,
        tuple(sorted((size, round(ns, 3)) for size, ns in chase.points.items())), None, processors_here(),
        time.perf_counter() - start, round(small[0] * 1e9 / (16 << 20) * page, 1), round(large[0] * 1e9 / (16 << 20) * page, 1),
        tuple(notes),
    )  # fmt: skip


def _first(chase: _Chase, probe: _core.MemoryProbe) -> tuple[int, int, float]:
    """Bytes, ways and latency of the first level."""
    plateau = min(chase.at(size * KIB) for size in (4, 6, 8, 12))
    coarse = 12
    while coarse < 256 and chase.at(coarse * KIB, again=2) < 1.8 * plateau:
        coarse += 4 if coarse < 64 else 16
    edge = coarse
    for size in range(coarse, max(coarse - 20, 8), -1):  # from beyond the edge inwards, until it is quick again
        if chase.at(size * KIB, 0.012, 3) < 1.12 * plateau:
            edge = size
            break
    ways = 1
    for count in range(2, 33):
        best = min(probe.chase(count, 4096, 0, 0.002, 7 * count + n)[0] for n in range(2))
        if best > 1.6 * plateau:
            break
        ways = count
    way = 4096
    fits = [ways * way // 2**n * m for n in range(3) for m in (1, 2, 4)]  # a way of a page, or of another power of two
    near = min(fits, key=lambda size: abs(size - edge * KIB))
    if abs(near - edge * KIB) <= 2 * KIB:
        return near, ways, plateau
    return edge * KIB, ways, plateau


def _second(chase: _Chase, first: int) -> tuple[int, tuple[int, int], float]:
    """Bytes and latency of the second level: the middle of what several buffers, their pages drawn anew, say."""
    plateau = min(chase.at(int(first * factor), 0.01, 2) for factor in (1.5, 2, 2.5, 3))
    buffers = [probe for probe in (_core.MemoryProbe(8 << 20, False) for _ in range(5)) if probe.ok()]
    sizes, stop, size = [], 8 << 20, 3 * first
    curves: list[list[float]] = [[] for _ in buffers]
    while size <= min(stop, 8 << 20):
        size = size // 4096 * 4096
        sizes.append(size)
        for number, probe in enumerate(buffers):
            curves[number].append(probe.chase(size // 64, 64, 0, 0.0035, size + number)[0])
        chase.points[size] = min(curve[-1] for curve in curves)
        if stop == 8 << 20 and statistics.median(curve[-1] for curve in curves) > 2 * plateau:
            stop = int(2.2 * size)
        size = int(size * 1.12)
    outer = min(min(ns for size, ns in zip(sizes, curve, strict=True) if size > 0.7 * sizes[-1]) for curve in curves)
    found = [_half(sizes, curve, (plateau + outer) / 2) for curve in curves]
    return int(statistics.median(found)), (int(min(found) * 0.95), int(max(found) * 1.05)), plateau


def _half(sizes: list[int], curve: list[float], half: float) -> float:
    """Where a curve passes ``half``; others only ever add to it, so no size is slower than a larger one was seen to be."""
    quiet = [min(curve[i:]) for i in range(len(curve))]
    for i in range(len(sizes) - 1):
        if quiet[i] <= half < quiet[i + 1]:
            return sizes[i] + (sizes[i + 1] - sizes[i]) * (half - quiet[i]) / (quiet[i + 1] - quiet[i])
    return float(sizes[0])


def _third(chase: _Chase, second: int) -> tuple[tuple[int, int] | None, float, float]:
    """Where the third level ends (low, high), its latency, and memory's."""
    memory = min(chase.at(_BUFFER, 0.03), chase.at(_BUFFER * 2 // 3, 0.03))
    plateau = min(chase.at(int(second * factor), 0.01) for factor in (2, 2.5, 3))
    if plateau > 0.6 * memory:
        return None, plateau, memory
    low, high, size = int(2 * second), _BUFFER, int(2 * second)
    middle = math.sqrt(plateau * memory)
    while size < _BUFFER:
        latency = chase.at(size, 0.012)
        if latency < min(2 * plateau, middle):
            low = size
        if latency > 0.75 * memory:
            high = size
            break
        size = int(size * 1.35)
    return (low, max(high, low)), plateau, memory


def _judged(
    name: str, measured: tuple[int, int], ways: int | None, latency: float, rates: list[float], told: SystemCache | None,
    line: int, notes: list[str],
) -> MemoryLevel:  # fmt: skip
    middle = (measured[0] + measured[1]) // 2
    agrees, size = None, middle
    if told is not None:
        agrees = measured[0] <= told.bytes <= measured[1] and (ways is None or told.ways is None or ways == told.ways)
        if agrees or measured[0] <= 2 * told.bytes <= 4 * measured[1]:  # others on the machine can hide half of a cache
            size = told.bytes
        if not agrees:
            of = f" of {ways} ways" if ways and told.ways != ways else ""
            notes.append(
                f"{name}: measured {measured[0]} to {measured[1]} bytes{of}, the system says {told.bytes} of {told.ways} ways"
            )
        ways = ways or told.ways
    row = (ways or TYPICAL_WAYS) * line
    size = max(round(size / row), 1) * row
    return MemoryLevel(
        name, size, ways, line, round(latency, 2), round(rates[0]), round(rates[1]), round(rates[2]), measured_bytes=measured,
        shared=told.shared if told else 1, agrees=agrees,
    )  # fmt: skip


def _shared(
    name: str,
    measured: tuple[int, int],
    latency: float,
    rates: list[float],
    told: SystemCache | None,
    line: int,
    notes: list[str],
) -> MemoryLevel:
    ways = told.ways if told and told.ways else 2 * TYPICAL_WAYS
    size = told.bytes if told else max(measured[0] // (ways * line), 1) * ways * line
    agrees = None if told is None else measured[0] * 0.8 <= told.bytes <= measured[1] * 1.25
    if told is not None and not agrees:
        notes.append(
            f"{name}: a program here gets {measured[0]} to {measured[1]} of the {told.bytes} bytes that the system names; "
            "others, of this machine or of its host, use the rest"
        )
    return MemoryLevel(
        name, size, ways, line, round(latency, 2), round(rates[0]), round(rates[1]), round(rates[2]), measured_bytes=measured,
        shared=told.shared if told else 1, agrees=agrees,
    )  # fmt: skip


def _tlb(page: int) -> tuple[TlbLevel, ...]:
    """Levels of translation of small pages: where a line a page costs more than the same lines side by side."""
    probe = _core.MemoryProbe(32 << 20, False)
    if not probe.ok():
        return ()
    excess: list[tuple[int, float]] = []
    counts = sorted({int(2 ** (n / 4)) for n in range(16, 52)} | {64, 96, 128})
    for count in counts:
        if count * page > 32 << 20:
            break
        apart = probe.chase(count, page, 1, 0.004, count)[0]
        together = probe.chase(count, 64, 0, 0.002, count)[0]
        excess.append((count, max(apart - together, 0.0)))
    found: list[TlbLevel] = []
    base = statistics.median(ns for count, ns in excess[:5])
    for number, threshold in ((1, 1.0), (2, 8.0)):
        beyond = next(
            (
                i
                for i, (_, ns) in enumerate(excess)
                if ns > base + threshold and min(e for _, e in excess[i:]) > base + threshold
            ),
            0,
        )
        if beyond:
            found.append(
                TlbLevel(
                    f"TLB{number}", excess[beyond - 1][0], page, round(excess[min(beyond + 1, len(excess) - 1)][1], 1)
                )
            )
    return tuple(found)
