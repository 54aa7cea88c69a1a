"""Parts of locality.py: the recommendation against trying everything, the projected order against the clock, the probe."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any

import numpy as np
from locality_engines import CACHES
from locality_peers import busy_processes, cpuinfo

from memfit.analyses.cache_misses import misses_of_nest
from memfit.analyses.miss_reasons import lower_bound_lines
from memfit.analyses.patterns import parse_pattern
from memfit.analyses.reuse import reuse_of_nest
from memfit.fitting.loop_search import search, spread
from memfit.fitting.timed_kernel import time_variants
from memfit.ir.kernel import Kernel, Variant, lower, original
from memfit.machine.cache import Hierarchy
from memfit.machine.probe import measure_machine
from memfit.machine.spec import Machine, load_machine
from memfit.machine.system import system_caches

PROVED = ("matmul:256", "conv:32,30,30,32,3", "conv:32,30,30,32,3,nhwc")
VARIANTS = 24
TILES = (16, 32, 64, 128, 256, 512)


def recommendation(repeats: int) -> dict[str, Any]:
    """What the search finds in its time, beside the fewest first-level misses of all tiles of the product in order i k j."""
    machine = load_machine("amd-zen5")
    rows = {}
    for pattern, tiled in (("matmul:200,300,250", True), ("conv:32,30,30,32,3", False), ("matmul:512", True)):
        kernel = parse_pattern(pattern)[0]
        touched = reuse_of_nest(lower(kernel, original(kernel))).cold_by_array or {}
        bound = lower_bound_lines([kernel], CACHES.levels[0], dict(touched))
        seconds, found = min(
            (_searched(kernel, machine) for _ in range(repeats)), key=lambda pair: pair[0]
        )  # the same answer each time but for what the time allows
        fewest = min(found, key=lambda f: f.misses.levels[0].misses)
        row: dict[str, Any] = {
            "seconds": seconds, "lower_bound_lines": bound, "recommended": found[0].variant.words(kernel),
            "misses": found[0].misses.levels[0].misses, "over_bound": found[0].misses.levels[0].misses / bound,
            "fewest_found": fewest.variant.words(kernel), "fewest_misses": fewest.misses.levels[0].misses,
            "as_written_misses": misses_of_nest(lower(kernel, original(kernel)), CACHES).levels[0].misses,
        }  # fmt: skip
        if tiled:
            row["every_tile"] = _exhaustive(kernel)
            row["over_every_tile"] = row["fewest_misses"] / row["every_tile"]["misses"]
            row["recommended_over_every_tile"] = row["misses"] / row["every_tile"]["misses"]
        rows[pattern] = row
        print(
            f"  {pattern}: {seconds:.2f} s, "
            + "  ".join(f"{key} {row[key]}" for key in row if key not in ("every_tile",))
        )
    return rows


def _searched(kernel: Kernel, machine: Machine) -> tuple[float, list[Any]]:
    begun = time.perf_counter()
    found = search(kernel, CACHES, machine)
    return time.perf_counter() - begun, found


def _exhaustive(kernel: Kernel) -> dict[str, Any]:
    """Every tile of powers of two in order i k j, rows as they are and padded by a line, simulated in full."""
    begun = time.process_time()
    extents = kernel.extents
    sizes = {name: [t for t in TILES if t < extents[name]] + [extents[name]] for name in "ikj"}
    paddings: list[dict[str, int]] = [{}, {name: array.shape[-1] + 16 for name, array in kernel.arrays.items()}]
    best, count = None, 0
    for chosen in itertools.product(*(sizes[name] for name in "ikj")):
        tiles = tuple((n, s) for n, s in zip("ikj", chosen, strict=True) if s < extents[n])
        for leading in paddings:
            variant = Variant(("i", "k", "j"), tiles, leading)
            misses = misses_of_nest(lower(kernel, variant), CACHES).levels[0].misses
            count += 1
            if best is None or misses < best[0]:
                best = misses, variant.words(kernel)
    assert best is not None
    return {"misses": best[0], "variant": best[1], "tried": count, "cpu_seconds": time.process_time() - begun}


def proof(patterns: tuple[str, ...] = PROVED) -> dict[str, Any]:
    """Rank correlation of the projected seconds of variants with their measured medians on this machine."""
    machine = measure_machine(None)
    levels: Hierarchy = machine.hierarchy()
    rows = {}
    for pattern in patterns:
        kernel = parse_pattern(pattern)[0]
        found = spread(kernel, levels, machine, VARIANTS)
        timed = time_variants(kernel, [f.variant for f in found], rounds=9, budget=15.0)
        projected = [f.seconds for f in found]
        medians = [t.seconds for t in timed]
        rows[pattern] = {
            "variants": len(found), "rank_correlation": rank_correlation(projected, medians),
            "slowest_over_quickest": max(medians) / min(medians),
            "each": [
                {"variant": f.variant.words(kernel), "projected_seconds": f.seconds, "measured_seconds": t.spread()}
                for f, t in zip(found, timed, strict=True)
            ],
        }  # fmt: skip
        print(f"  {pattern}: rank correlation {rows[pattern]['rank_correlation']:.3f} of {len(found)} variants, "
              f"{max(medians) / min(medians):.0f} x apart")  # fmt: skip
    return rows


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Spearman's: the correlation of ranks, equal values at their mean rank."""

    def ranks(values: list[float]) -> np.ndarray:
        array = np.array(values)
        return np.array([(array < v).sum() + ((array == v).sum() - 1) / 2 for v in values])

    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def hierarchy(python: str | None, repeats: int) -> dict[str, Any]:
    """The probe, with two other processes running, against the system's word; what py-cpuinfo says."""
    told = {cache.name: cache for cache in system_caches()}
    runs = []
    others = busy_processes()
    try:
        for _ in range(repeats):
            begun = time.perf_counter()
            machine = measure_machine(None)
            row: dict[str, Any] = {"seconds": time.perf_counter() - begun}
            for level in machine.caches:
                row[level.name] = {
                    "bytes": level.bytes, "measured_bytes": level.measured_bytes, "ways": level.ways,
                    "latency_ns": level.latency_ns, "agrees": level.agrees,
                }  # fmt: skip
                if level.measured_bytes and level.name in told:
                    middle = sum(level.measured_bytes) / 2
                    row[level.name]["off"] = abs(middle - told[level.name].bytes) / told[level.name].bytes
            row["L1_ways_right"] = machine.levels[0].ways == told["L1"].ways if "L1" in told else None
            runs.append(row)
    finally:
        for other in others:
            other.kill()
            other.wait()
    summary: dict[str, Any] = {"seconds": statistics.median(r["seconds"] for r in runs)}
    for name in ("L1", "L2"):
        off = [r[name]["off"] for r in runs if "off" in r.get(name, {})]
        if off:
            summary[f"{name}_off"] = {"median": statistics.median(off), "largest": max(off)}
    summary["L1_ways_right"] = sum(bool(r["L1_ways_right"]) for r in runs)
    print(f"  {summary}")
    return {
        "runs": len(runs), **summary, "system": {name: vars(cache) for name, cache in told.items()},
        "py_cpuinfo": cpuinfo(python), "each": runs,
    }  # fmt: skip
