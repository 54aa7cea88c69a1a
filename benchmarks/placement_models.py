"""Static placement of real steps: memfit beside MiniMalloc, the greedy orders, ExecuTorch's greedy and Inductor's pools.

Every planner gets the same lifetimes, recorded from the zoo of ``examples/`` (``--record``): operations of a whole step
at ATen granularity, views merged into their storage, sizes rounded up to 64 bytes, parameters and inputs left out.
Reported: how often the peak is the load (which proves it), mean and worst peak / load, and CPU seconds in sum. memfit and
the greedy orders are timed in this process, from columns to validated offsets; MiniMalloc by the CPU time of its process,
at a capacity of the load; the others in theirs. Every answer is checked by memfit's validator.

Peers live elsewhere: MEMFIT_MINIMALLOC is the path of its program, MEMFIT_EXECUTORCH that of a Python that can import
executorch. A peer that is not there is left out, and the table says so.

    python benchmarks/placement_models.py [--record] [--only gpt2] [--peers minimalloc] [--time-limit 10]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import placement_peers as peers
import record

from memfit.planners import greedy
from memfit.planners.portfolio import plan_problem
from memfit.planners.problem import Placement, Problem, simple_problem
from memfit.planners.table import table_text
from memfit.planners.validate import why_invalid

HERE = Path(__file__).resolve().parent
RECORDINGS = HERE / "instances" / "placement" / "models.json.gz"
UNIT = 64
_WALL = 12  # times the limit, in seconds by the clock, for a peer that counts those: the machine may be shared
DEEPER: dict[str, dict[str, Any]] = {
    "gpt2 12 layers": {"layers": 12, "width": 192, "length": 96, "vocabulary": 5000},
    "bert 12 layers": {"layers": 12, "width": 192},
    "llama 10 layers": {"layers": 10},
    "g 16 layers": {"layers": 16},
    "r 20 blocks": {"blocks": 20},
    "resnet50": {},
}
"""Larger steps of architectures of the zoo, beside the small default of every one."""


def main() -> None:
    """Record, or plan what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="trace the zoo anew, and write the recordings")
    parser.add_argument("--only", help="steps whose name holds this text")
    parser.add_argument("--peers", default="minimalloc,executorch,inductor", help="which of these to run beside memfit")
    parser.add_argument("--time-limit", type=float, default=10.0, help="seconds for each step and planner")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.record:
        record_steps()
        return
    cases = {name: problem for name, problem in recorded().items() if not options.only or options.only in name}
    rows = run(cases, options)
    table = {planner: summary(rows, planner) for planner in planners_of(rows)}
    show(table, len(rows))
    if not options.only and "minimalloc" in options.peers:
        where = record.write("placement-models", {
            "what": "static placement of recorded steps; ratio = peak / load; seconds of CPU time in sum",
            "recordings": str(RECORDINGS.relative_to(HERE.parent)), "time_limit": options.time_limit,
            "steps": len(rows), "buffers": sum(len(p) for p in cases.values()),
            "summary": table, "never_above": never_above(rows), "cases": rows,
        })  # fmt: skip
        print(f"wrote {where}")


def record_steps() -> None:
    """Trace every architecture of the zoo, inference and training, and write their lifetimes."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.path.insert(0, str(HERE.parent / "examples"))
    import zoo

    from memfit.frameworks.torch.tape import trace_step
    from memfit.planners.lifetimes import problem_of_trace

    steps: dict[str, Any] = {}
    wanted = {name: (name, {}) for name in zoo.ARCHITECTURES} | {n: (n.partition(" ")[0], s) for n, s in DEEPER.items()}
    for name, (function, settings) in wanted.items():
        for kind, train in (("inference", False), ("training", True)):
            build = getattr(zoo, function)
            trace = trace_step(lambda build=build, more=settings, train=train: build(train=train, **more), steps=1)
            problem = problem_of_trace(trace, alignment=UNIT)
            times, rank = np.unique(np.concatenate([problem.lower, problem.upper]), return_inverse=True)
            lower, upper = rank[: len(problem)], rank[len(problem) :]
            order = np.lexsort((upper, lower))
            steps[f"{name} {kind}"] = {
                "lower": np.diff(lower[order], prepend=0).tolist(), "length": (upper - lower)[order].tolist(),
                "size": (problem.size // UNIT)[order].tolist(),
            }  # fmt: skip
            print(f"{name} {kind}: {len(problem)} buffers, {len(times)} instants", flush=True)
    RECORDINGS.parent.mkdir(parents=True, exist_ok=True)
    document = {"unit": UNIT, "versions": record.versions(), "commit": record.commit(), "steps": steps}
    RECORDINGS.write_bytes(gzip.compress(json.dumps(document, separators=(",", ":")).encode(), 9, mtime=0))
    print(f"{len(steps)} steps, {RECORDINGS.stat().st_size} bytes")


def recorded() -> dict[str, Problem]:
    """The recorded steps as Problems."""
    document = json.loads(gzip.decompress(RECORDINGS.read_bytes()))
    found = {}
    for name, columns in document["steps"].items():
        lower = np.cumsum(columns["lower"])
        sizes = np.array(columns["size"], dtype=np.int64) * document["unit"]
        found[name] = simple_problem(lower, lower + np.array(columns["length"]), sizes)
    return found


def run(cases: dict[str, Problem], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every planner on every step: {step: {"load", "buffers", planner: {"peak", "seconds"}}}."""
    wanted = options.peers.split(",")
    minimalloc = peers.program("MEMFIT_MINIMALLOC", "MiniMalloc") if "minimalloc" in wanted else None
    executorch = peers.program("MEMFIT_EXECUTORCH", "ExecuTorch") if "executorch" in wanted else None
    pools = peers.inductor_pools() if "inductor" in wanted else None
    rows: dict[str, dict[str, Any]] = {}
    warm = simple_problem([0, 1], [2, 3], [64, 64])
    plan_problem(warm)  # what is imported or built on first use is no planning
    for number, (name, problem) in enumerate(cases.items(), 1):
        begun = time.process_time()
        result = plan_problem(problem, time_limit=options.time_limit, threads=options.threads)
        row: dict[str, Any] = {"buffers": len(problem), "load": load_of(problem)}
        row["memfit"] = checked(problem, result.best.offset, time.process_time() - begun, result.best.strategy)
        row["memfit"]["bound"] = result.bound
        row["greedy"] = greedy_orders(problem)
        if minimalloc:
            row["MiniMalloc"] = by_minimalloc(minimalloc, problem, row["load"], options.time_limit)
        if pools:
            row["Inductor pools"] = answered(problem, pools(problem))
        rows[name] = row
        print(f"{number:3d}/{len(cases)} {name:28s} {len(problem):5d} buffers  " + "  ".join(
            f"{k} {row[k]['peak'] / row['load']:.4f} {row[k]['seconds']:.3f} s" if row[k].get("peak") else f"{k}: none"
            for k in ("memfit", "MiniMalloc", "Inductor pools") if k in row
        ), flush=True)  # fmt: skip
    if executorch:
        for name, answer in peers.executorch_greedy(executorch, cases).items():
            rows[name]["ExecuTorch greedy"] = answered(cases[name], answer)
    return rows


def load_of(problem: Problem) -> int:
    """Largest sum of live sizes: counted here, apart from the planners."""
    times = np.unique(np.concatenate([problem.lower, problem.upper]))
    change = np.zeros(len(times), dtype=np.int64)
    np.add.at(change, np.searchsorted(times, problem.lower), problem.size)
    np.add.at(change, np.searchsorted(times, problem.upper), -problem.size)
    return int(np.cumsum(change).max())


def checked(problem: Problem, offset: Any, seconds: float, strategy: str = "") -> dict[str, Any]:
    """Peak and seconds of an answer; an answer that is not valid ends the benchmark."""
    offset = np.asarray(offset, dtype=np.int64)
    peak = int((offset + problem.size).max())
    why = why_invalid(problem, Placement(strategy, offset, np.zeros(len(problem), np.int64), peak, 0))
    if why:
        raise SystemExit(f"{strategy or 'a planner'}: {why}")
    return {"peak": peak, "seconds": seconds, **({"strategy": strategy} if strategy else {})}


def answered(problem: Problem, answer: dict[str, Any]) -> dict[str, Any]:
    """A peer's answer, checked where it has offsets."""
    if "offset" not in answer:
        return answer
    found = checked(problem, answer["offset"], answer["seconds"])
    return found | {"peak": max(found["peak"], answer.get("reserved", 0))}


def greedy_orders(problem: Problem) -> dict[str, Any]:
    """Peak and CPU seconds of each greedy order: those of memfit, one by one."""
    from memfit.planners import reduce

    whole = reduce.whole_instance(problem, reduce.groups_of(problem))
    found = {}
    for name in greedy.STRATEGIES:
        begun = time.process_time()
        offset = greedy.place(whole, name)
        found[name] = checked(problem, offset, time.process_time() - begun)
    best = min(found.values(), key=lambda one: one["peak"])
    return {"peak": best["peak"], "seconds": sum(one["seconds"] for one in found.values()), "orders": found}


def by_minimalloc(program: str, problem: Problem, capacity: int, limit: float) -> dict[str, Any]:
    """MiniMalloc at a capacity of the load: peak and CPU seconds of its process, or no peak where it found none."""
    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder) / "in.csv", Path(folder) / "out.csv"
        table.write_text(table_text(problem))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [
            program,
            f"--capacity={capacity}",
            f"--input={table}",
            f"--output={out}",
            f"--timeout={_WALL * limit:.0f}s",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if done.returncode or not out.is_file() or not re.search(r",offset$", out.read_text().partition("\n")[0]):
            return {"peak": None, "seconds": seconds}
        offset = [int(line.rpartition(",")[2]) for line in out.read_text().splitlines()[1:]]
        return checked(problem, offset, seconds)


def planners_of(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the planners that answered anything."""
    return [
        n
        for n in ("memfit", "MiniMalloc", "greedy", "ExecuTorch greedy", "Inductor pools")
        if any(n in r for r in rows.values())
    ]


def summary(rows: dict[str, dict[str, Any]], planner: str) -> dict[str, Any]:
    """Over all steps, and inference and training apart: at the load, mean and worst ratio, CPU seconds."""
    found: dict[str, Any] = {}
    for kind in ("", "inference", "training"):
        chosen = [row for name, row in rows.items() if name.endswith(kind) and planner in row]
        ratios = [row[planner]["peak"] / row["load"] for row in chosen if row[planner].get("peak")]
        found[kind or "all"] = {
            "steps": len(chosen), "answered": len(ratios), "at_load": sum(ratio == 1 for ratio in ratios),
            "mean": sum(ratios) / len(ratios) if ratios else None, "worst": max(ratios, default=None),
            "cpu_seconds": sum(row[planner]["seconds"] for row in chosen),
            "slowest": max((row[planner]["seconds"] for row in chosen), default=0.0),
        }  # fmt: skip
    if planner == "memfit":
        found["all"]["proved"] = sum(row[planner]["peak"] == row[planner]["bound"] for row in rows.values())
    if planner == "greedy":
        found["orders"] = {
            order: {
                "at_load": sum(row[planner]["orders"][order]["peak"] == row["load"] for row in rows.values()),
                "worst": max(row[planner]["orders"][order]["peak"] / row["load"] for row in rows.values()),
            }
            for order in greedy.STRATEGIES
        }
    return found


def never_above(rows: dict[str, dict[str, Any]]) -> dict[str, int]:
    """On how many steps memfit's peak is above each other planner's."""
    others = [name for name in planners_of(rows) if name != "memfit"]
    return {
        other: sum(bool(r.get(other, {}).get("peak")) and r["memfit"]["peak"] > r[other]["peak"] for r in rows.values())
        for other in others
    }


def show(table: dict[str, Any], steps: int) -> None:
    """Print the summary."""
    print(
        f"\n{steps} steps           at load        mean ratio  worst   CPU s   slowest   inference / training at load"
    )
    for planner, found in table.items():
        every, one, two = found["all"], found["inference"], found["training"]
        if not every["answered"]:
            print(f"{planner:18s} no answer")
            continue
        proved = f" ({every['proved']} proved)" if "proved" in every else ""
        print(
            f"{planner:18s} {every['at_load']:3d} of {every['steps']:3d}{proved:13s} {every['mean']:.4f}  {every['worst']:.4f} "
            f"{every['cpu_seconds']:8.3f} {every['slowest']:8.3f}   "
            f"{one['at_load']} of {one['steps']} / {two['at_load']} of {two['steps']}"
        )


if __name__ == "__main__":
    main()
