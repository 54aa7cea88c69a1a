"""Large placement: published and generated problems of 10,000 to a million buffers, peak over load, CPU time, memory.

    IDEALLOC_BENCHMARKS=<folder of its CSV files> IDEALLOC=<its program> python benchmarks/placement_large.py
        [--only S_1,uniform,Y_1:million] [--million] [--seconds 10] [--seed 11]

Every problem runs in a process of its own: CPU seconds are those of `place` (with the way there), memory is the largest
resident set of the process above what it held before. Each stops at 1.0001 x the load (1.001 x for generated problems,
1.01 x for a million buffers) or when its time is up. Beside it, in the same process: greedy by size with best fit, the
order of TensorFlow Lite and XLA, by the same compiled filling. Offsets are checked by a sweep that shares no code with
the planner. Published problems are those of idealloc's repository, read where the variable says; a problem of a million
buffers is a published one repeated, each time with a fifth of its sizes changed by up to 30 %, or a generated one.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import large_families
import numpy as np
import record

PUBLISHED = {"pangu_2.6B": "somas_tensors/pangu_2.6B.csv", "S_1": "iopddl/S_1.csv", "Y_1": "iopddl/Y_1.csv"}
MILLION = 1_000_000
MILLION_FAMILIES = ("training", "inference", "heavy_tailed", "micro_batches")


def folder() -> Path | None:
    """Where the published problems lie, if anybody said."""
    named = os.environ.get("IDEALLOC_BENCHMARKS")
    return Path(named) if named and Path(named).is_dir() else None


def published(name: str) -> large_families.Columns:
    """The columns of a published problem (upper exclusive)."""
    place = folder()
    assert place is not None
    rows = np.loadtxt(place / PUBLISHED[name], delimiter=",", skiprows=1, dtype=np.int64)
    return rows[:, 1].copy(), rows[:, 2].copy(), rows[:, 3].copy()


def columns_of(name: str, million: bool, seed: int) -> large_families.Columns:
    """A problem by its name."""
    if name in PUBLISHED:
        columns = published(name)
        return large_families.repeated(columns, -(-MILLION // len(columns[0])), seed) if million else columns
    return large_families.FAMILIES[name](MILLION if million else 20_000, seed)


def check(columns: large_families.Columns, offset: np.ndarray) -> int:
    """The peak, after a sweep over time through the live buffers in order of address."""
    lower, upper, size = (column.tolist() for column in columns)
    at = offset.tolist()
    events = sorted([(t, 0, i) for i, t in enumerate(upper)] + [(t, 1, i) for i, t in enumerate(lower)])
    live: list[tuple[int, int]] = []
    for _, begins, i in events:
        where = bisect.bisect_left(live, (at[i], 0))
        if begins:
            assert at[i] >= 0
            assert where == len(live) or live[where][0] >= at[i] + size[i], "overlap"
            assert where == 0 or sum(live[where - 1]) <= at[i], "overlap"
            live.insert(where, (at[i], size[i]))
        else:
            assert live.pop(where)[0] == at[i]
    return int((offset + columns[2]).max())


def load_of(columns: large_families.Columns) -> int:
    """The largest sum of live sizes."""
    lower, upper, size = columns
    times, index = np.unique(np.concatenate([lower, upper]), return_inverse=True)
    change = np.zeros(len(times), dtype=np.int64)
    np.add.at(change, index, np.concatenate([size, -size]))
    return int(np.cumsum(change).max())


def worker(name: str, million: bool, seconds: float, seed: int) -> dict[str, Any]:
    """One problem, measured."""
    from memfit import _core
    from memfit.planners.large import BEST_FIT, native_problem, place
    from memfit.planners.problem import plain_instance

    columns = columns_of(name, million, seed)
    load = load_of(columns)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stop = 1.0001 if name in PUBLISHED else 1.001
    stop = 1.01 if million else stop
    steps: list[tuple[float, float]] = []

    began = time.process_time()
    instance = plain_instance(*columns)
    offset = place(instance, time_limit=seconds, seed=0, target=int(stop * load),
                   progress=lambda peak, spent: steps.append((round(spent, 3), round(peak / load, 6))))  # fmt: skip
    spent = time.process_time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ratio = check(columns, offset) / load
    result: dict[str, Any] = {
        "name": name + (" x million" if million else ""), "buffers": len(columns[0]), "load": load,
        "ratio": round(ratio, 9), "cpu_seconds": round(spent, 2), "memory_bytes": (after - before) * 1024,
        "resident_bytes": after * 1024, "first_below": {
            str(goal): next((at for at, reached in steps if reached <= goal), None) for goal in (1.05, 1.01, 1.001)
        },
        "published": name in PUBLISHED,
    }  # fmt: skip
    if not million:
        began = time.process_time()
        problem = native_problem(instance)
        order = np.lexsort((-problem.lifetime(), -instance.size)).astype(np.int32)
        filling = _core.Filling(problem, order, BEST_FIT, -1)
        while not filling.run(1 << 20):
            pass
        peak = int((np.asarray(filling.whole()) + instance.size).max())
        result["greedy_by_size"] = {
            "ratio": round(peak / load, 6), "cpu_seconds": round(time.process_time() - began, 2),
        }  # fmt: skip
    return result


def idealloc(name: str, seconds: int) -> dict[str, Any] | str:
    """What idealloc's own program makes of a published problem."""
    program, place = os.environ.get("IDEALLOC"), folder()
    if not program or place is None:
        return "not found: set IDEALLOC to its program"
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        run = subprocess.run([program, "-i", str(place / PUBLISHED[name]), "ex-csv"], capture_output=True, text=True,
                             timeout=seconds)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"no answer: {problem}"
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"Makespan:\s*(\d+)", run.stdout)
    if not found:
        return "no answer: " + run.stderr[-200:]
    return {
        "ratio": round(int(found[1]) / load_of(published(name)), 6),
        "cpu_seconds": round(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime, 2),
    }  # fmt: skip


def child(name: str, million: bool, seconds: float, seed: int) -> dict[str, Any]:
    """The worker in a process of its own."""
    command = [sys.executable, __file__, "--worker", name, "--seconds", str(seconds), "--seed", str(seed)]
    run = subprocess.run([*command, *(["--million"] if million else [])], capture_output=True, text=True)
    if run.returncode:
        return {"name": name, "failed": run.stderr[-400:]}
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--million", action="store_true", help="also (worker: only) problems of a million buffers")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--worker", default="")
    parser.add_argument(
        "--keep", action="store_true", help="keep what the result file says of problems not measured now"
    )
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.million, options.seconds, options.seed)))
        return
    if folder() is None:
        print("published problems not found: set IDEALLOC_BENCHMARKS; going on without them")
    real = list(PUBLISHED) if folder() is not None else []
    wanted = options.only.split(",") if options.only else None
    jobs = [(name, False, options.seconds) for name in [*real, *large_families.FAMILIES]]
    if options.million:
        jobs += [(name, True, 6 * options.seconds) for name in [*MILLION_FAMILIES, *real]]
    rows: list[dict[str, Any]] = []
    if options.keep:
        rows = json.loads((record.RESULTS / "placement-large.json").read_text())["problems"]
    for name, million, seconds in jobs:
        if wanted is not None and name + (":million" if million else "") not in wanted:
            continue
        row = child(name, million, seconds, options.seed)
        if name in PUBLISHED and not million:
            row["idealloc"] = idealloc(name, 300)
        print(json.dumps(row), flush=True)
        rows = [*(kept for kept in rows if kept["name"] != row["name"]), row]
        path = record.write("placement-large", {
            "what": "peak of a placement over the load (a lower bound); CPU seconds of one thread, measured memory",
            "time_limit_seconds": options.seconds, "seed": options.seed, "problems": rows,
        })  # fmt: skip
    print(path.name if rows else "nothing measured")


if __name__ == "__main__":
    main()
