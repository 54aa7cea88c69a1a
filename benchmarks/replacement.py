"""Speed and hit rates of the replacement policies, beside libCacheSim on the same accesses.

    python benchmarks/replacement.py [--libcachesim PYTHON] [--repeats 5]

CPU seconds, the fastest of several runs, one after the other, single thread. ``PYTHON``: an interpreter that has
``libcachesim`` (or the environment variable LIBCACHESIM_PYTHON); without it the peer is left out and the result says so.
The peer runs its own compiled loop over a file in its own format in the page cache, hash table and reader included; here
pages are numbered before, which is timed apart (``numbering``). Its hit rates show that the policies are the same ones;
where they differ, the peer's version of the policy does (see the docstrings of ``memfit.paging``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
from record import fastest

from memfit.paging.accesses import Accesses, accesses_of
from memfit.paging.policies import POLICIES, all_misses
from memfit.testing.access_patterns import cyclic, forward_backward, zipf

TRACES: dict[str, tuple[Callable[[], Accesses], float]] = {
    "zipf 0.9, 2 M accesses, 20 k objects, 50 %": (lambda: zipf(2_000_000, 20_000), 0.5),
    "zipf 0.9, 2 M accesses, 400 k objects, 10 %": (lambda: zipf(2_000_000, 400_000), 0.1),
    "cyclic, 96 layers, 10 k rounds, 80 %": (lambda: cyclic(96, 10_000), 0.8),
    "forward and backward, 96 layers, 5 k rounds, 80 %": (lambda: forward_backward(96, 5_000), 0.8),
}
PEER = Path(__file__).parent / "peers" / "libcachesim_misses.py"


def write_oracle(trace: Accesses, path: Path) -> None:
    """The trace with the next use of each access, as libCacheSim's oracle format holds it."""
    count = len(trace)
    rows = np.zeros(count, np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")]))
    order = np.lexsort((np.arange(count), trace.page))
    later = np.full(count, -1, np.int64)
    same = trace.page[order[1:]] == trace.page[order[:-1]]
    later[order[:-1][same]] = order[1:][same]
    rows["time"], rows["id"], rows["size"] = np.arange(count), trace.page.astype(np.uint64) + 1, 1
    rows["next"] = np.where(later < 0, -1, later + 1)  # the peer counts accesses from 1
    rows.tofile(path)


def of_peer(python: str | None, trace: Accesses, capacity: int, repeats: int) -> dict[str, Any] | str:
    if not python:
        return "left out: no interpreter with libcachesim given"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.oracleGeneral"
        write_oracle(trace, path)
        done = subprocess.run(
            [python, str(PEER), str(path), str(capacity), str(repeats)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        return f"left out: it failed ({(done.stderr.strip().splitlines() or ['no message'])[-1][:200]})"
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def measure(trace: Accesses, share: float, python: str | None, repeats: int) -> dict[str, Any]:
    capacity = max(1, int(share * trace.pages))
    peer = of_peer(python, trace, capacity, repeats)
    theirs = {} if isinstance(peer, str) else peer["policies"]
    rows = {}
    for name, policy in POLICIES.items():
        seconds, outcome = fastest(repeats, lambda policy=policy: policy.misses(trace, capacity))  # type: ignore[misc]
        row = {
            "hit_rate": outcome.hit_rate, "cpu_seconds": seconds, "million_accesses_per_second": len(trace) / seconds / 1e6
        }  # fmt: skip
        if name in theirs:
            row["peer_hit_rate"] = theirs[name]["hit_rate"]
            row["peer_million_accesses_per_second"] = len(trace) / theirs[name]["cpu_seconds"] / 1e6
            row["times_faster"] = theirs[name]["cpu_seconds"] / seconds
        rows[name] = row
        print(f"  {name:8} " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    numbering, _ = fastest(repeats, lambda: accesses_of(trace.page))
    curves = {}
    for name in ("lru", "opt"):
        seconds, curve = fastest(1, lambda name=name: all_misses(POLICIES[name], trace))  # type: ignore[misc]
        curves[name] = "left out: too long for one pass" if curve is None else {"cpu_seconds": seconds}
    return {
        "accesses": len(trace), "pages": trace.pages, "capacity": capacity, "policies": rows,
        "numbering": {"cpu_seconds": numbering}, "whole_curve": curves,
        "peer": peer if isinstance(peer, str) else f"libCacheSim {peer['version']}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libcachesim", default=os.environ.get("LIBCACHESIM_PYTHON"), metavar="PYTHON")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    found = {}
    for name, (make, share) in TRACES.items():
        print(name)
        found[name] = measure(make(), share, options.libcachesim, options.repeats)
    print(record.write("replacement", {"repeats": options.repeats, "traces": found}))


if __name__ == "__main__":
    main()
