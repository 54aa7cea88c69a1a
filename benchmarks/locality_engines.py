"""Parts of locality.py: exactness and speed of the simulators and of reuse distances, beside peers on the same accesses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from locality_peers import Valgrind
from record import fastest

from memfit.analyses.cache_misses import misses_of_nest, misses_of_trace
from memfit.analyses.reuse import reuse_of_nest, reuse_of_trace
from memfit.errors import NestError
from memfit.machine.cache import parse_hierarchy
from memfit.testing.nests import IJK, IKJ, KNOWN_MISSES, TILED, product

CACHES = parse_hierarchy("48KiB/12,1MiB/16,32MiB/16")
NAMES = {IJK: "ijk", IKJ: "ikj", TILED: "ikj tiled 32"}
PRODUCTS = (("ijk", 256), ("ijk", 272), ("ikj", 256))
ACCUMULATOR = 20_512
"""First-level misses of true LRU; what the access pattern is: ``tests/unit/test_cache_golden.py``."""


def trace_of(order: str, row: int, n: int = 256) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
    """Addresses and marks of writes of a product, as the kernels of ``peers/cache_kernels.cc`` make them."""
    size = -(-n * row * 4 // 4096) * 4096
    a, b, c = 4096, 4096 + size, 4096 + 2 * size
    i, outer, inner = np.ogrid[:n, :n, :n]
    width = 2 * n + 1 if order == "ijk" else 3 * n + 1
    found, writes = np.zeros((n, n, width), np.uint32), np.zeros((n, n, width), np.uint8)
    if order == "ijk":
        found[:, :, 0:-1:2] = a + 4 * (i * row + inner)
        found[:, :, 1:-1:2] = b + 4 * (inner * row + outer)
        found[:, :, -1] = c + 4 * (i * row + outer)[:, :, 0]
        writes[:, :, -1] = 1
    else:
        found[:, :, 0] = a + 4 * (i * row + outer)[:, :, 0]
        found[:, :, 1::3] = b + 4 * (outer * row + inner)
        found[:, :, 2::3] = found[:, :, 3::3] = c + 4 * (i * row + inner)
        writes[:, :, 3::3] = 1
    return found.reshape(-1), writes.reshape(-1)


def exactness(valgrind: Valgrind, peer: dict[str, Any] | str) -> dict[str, Any]:
    """Every known row, Callgrind's count beside it, and the accumulator that a store that hits must keep."""
    rows = []
    for source, size, row, accesses, misses, written in KNOWN_MISSES:
        found = misses_of_nest(product(source, size, row), CACHES)
        counts = tuple(level.misses for level in found.levels)
        equal = (found.total, counts) == (accesses, misses) and written in (None, found.levels[0].write_backs)
        entry: dict[str, Any] = {
            "pattern": f"{NAMES[source]} {size}, rows of {row}", "accesses": found.total, "misses": counts,
            "equal_to_known": equal,
        }  # fmt: skip
        if source is not TILED and size < 512:
            entry["callgrind"] = valgrind.why or valgrind.misses(NAMES[source], size, row)
            if not valgrind.why:
                entry["callgrind_less_ours"] = entry["callgrind"] - counts[0]
        print("  " + "  ".join(f"{key} {value}" for key, value in entry.items()))
        rows.append(entry)
    step = np.arange(20_000, dtype=np.int64)
    stores = (1 << 20) + 64 * ((step % 64)[:, None] + 64 * np.arange(8))
    addresses = np.concatenate([(1 << 30) + 64 * step[:, None], stores], axis=1).ravel()
    writes = np.tile(np.array([0] + [1] * 8, np.uint8), len(step))
    accumulator = misses_of_trace(addresses, parse_hierarchy("48KiB/12"), writes).levels[0].misses
    theirs = peer if isinstance(peer, str) else peer["accumulator"]
    print(f"  accumulator {accumulator}, pycachesim {theirs}")
    return {
        "rows": rows, "accumulator": {"misses": accumulator, "true_lru": ACCUMULATOR, "pycachesim": theirs},
        "callgrind_one_more": "the line of the stack that the call touches",
    }  # fmt: skip


def trace_engine(valgrind: Valgrind, peer: dict[str, Any] | str, repeats: int) -> dict[str, Any]:
    """A recorded trace of 32-bit addresses with marks of writes in three levels, one thread."""
    rows = {}
    for order, row in PRODUCTS:
        addresses, writes = trace_of(order, row)
        seconds, found = fastest(repeats, lambda a=addresses, w=writes: misses_of_trace(a, CACHES, w))  # type: ignore[misc]
        entry: dict[str, Any] = {
            "accesses": len(addresses), "miss_share": found.levels[0].misses / len(addresses), "cpu_seconds": seconds,
            "million_accesses_per_second": len(addresses) / seconds / 1e6,
            "misses": [level.misses for level in found.levels],
        }  # fmt: skip
        if not isinstance(peer, str):
            theirs = peer["products"][f"{order} {row}"]
            entry["pycachesim"] = {
                **theirs,
                "million_accesses_per_second": theirs["accesses"] / theirs["cpu_seconds"] / 1e6,
            }
        else:
            entry["pycachesim"] = peer
        entry["cachegrind"] = valgrind.why or valgrind.speed(order, 256, row, 6, 3)
        rows[f"{order} 256, rows of {row}"] = entry
        print(f"  {order} {row}: {_million(entry)} M/s, pycachesim {_million(entry['pycachesim'])}, "
              f"Cachegrind {_million(entry['cachegrind'])}")  # fmt: skip
    return rows


def _million(entry: dict[str, Any] | str) -> str:
    return entry if isinstance(entry, str) else f"{entry['million_accesses_per_second']:.0f}"


def nest_engine(repeats: int) -> dict[str, Any]:
    """The same nests without a trace: every same-lines run simulated, and with jumps over what is proved to repeat."""
    rows = {}
    for source, size, row in (
        (IJK, 256, 256), (IJK, 256, 272), (IKJ, 256, 256), (TILED, 256, 256), (IKJ, 512, 512), (IKJ, 1024, 1024),
    ):  # fmt: skip
        nest, name = product(source, size, row), f"{NAMES[source]} {size}, rows of {row}"
        times = 1 if size == 1024 else repeats
        plain, found = fastest(times, lambda n=nest: misses_of_nest(n, CACHES, jump=False))  # type: ignore[misc]
        seconds, jumped = fastest(repeats, lambda n=nest: misses_of_nest(n, CACHES))  # type: ignore[misc]
        rows[name] = {
            "accesses": found.total, "same_counts": found.levels == jumped.levels, "plain_cpu_seconds": plain,
            "plain_billion_accesses_per_second": found.total / plain / 1e9, "cpu_seconds": seconds,
            "billion_accesses_per_second": found.total / seconds / 1e9, "jumps": jumped.jumps,
        }  # fmt: skip
        print(f"  {name}: {found.total / plain / 1e9:.2f} G/s plain, {found.total / seconds / 1e9:.1f} with jumps, "
              f"{1000 * seconds:.3g} ms")  # fmt: skip
    return rows


def reuse_distances(repeats: int) -> dict[str, Any]:
    """Exact distances of nests and of a gather over a million lines; what a sample of the gather says, and its error."""
    rows: dict[str, Any] = {}
    for source in (IJK, IKJ):
        nest = product(source, 256)
        seconds, found = fastest(repeats, lambda n=nest: reuse_of_nest(n))  # type: ignore[misc]
        rows[f"{NAMES[source]} 256"] = {
            "accesses": found.accesses, "cpu_seconds": seconds, "million_accesses_per_second": found.accesses / seconds / 1e6,
        }  # fmt: skip
    draw = np.random.default_rng(0)
    chances = np.cumsum(np.arange(1, (1 << 20) + 1) ** -1.0)
    picked = np.searchsorted(chances, draw.random(20_000_000) * chances[-1])
    gather = (draw.permutation(1 << 20)[picked].astype(np.uint32)) * np.uint32(64)
    seconds, exact = fastest(min(repeats, 3), lambda: reuse_of_trace(gather))
    rows["Zipf gather, 20 M of 1 M lines"] = {
        "accesses": exact.accesses, "cpu_seconds": seconds, "million_accesses_per_second": exact.accesses / seconds / 1e6,
    }  # fmt: skip
    sizes = [1 << n for n in range(10, 20)]
    for share in (0.1, 0.01):
        seconds, sampled = fastest(min(repeats, 3), lambda s=share: reuse_of_trace(gather, sample=s))  # type: ignore[misc]
        errors = [abs(sampled.misses_at(s) - exact.misses_at(s)) / exact.accesses for s in sizes]
        rows[f"the same, a sample of {share:g}"] = {
            "cpu_seconds": seconds, "million_accesses_per_second": exact.accesses / seconds / 1e6,
            "stated_error": sampled.error, "error": sum(errors) / len(errors), "largest_error": max(errors),
        }  # fmt: skip
    try:
        reuse_of_nest(product(IJK, 256), sample=0.1)
    except NestError as error:
        rows["a sample of a nest"] = f"refused: {error.why}"
    for name, row in rows.items():
        if not isinstance(row, str):
            print(f"  {name}: {row['million_accesses_per_second']:.1f} M/s")
    return rows
