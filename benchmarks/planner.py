"""The planner of `fit` against the exact optimum, against its own parts and known methods, and against the clock.

    python benchmarks/planner.py [--quick]

Writes benchmarks/results/planner.json. Three tables:
  exact    graphs of at most 40 ops over budgets: distance in step time to the integer program's optimum, once in the
           program's order of first runs and once in the plan's own order (a planner that reorders may beat the former);
  real     captured graphs (benchmarks/instances): extra seconds at fractions of the step's own peak, side by side with
           segment checkpointing (Chen et al. 2016, sqrt(n) and other segment counts) under the same judge;
  seconds  planning time (CPU seconds of one core), smallest feasible peak included, at about 1,000 and 10,000 ops.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import time
from pathlib import Path

import record

from memfit.analyses.liveness import simulate
from memfit.errors import BudgetError
from memfit.ir.graph import Graph, why_invalid
from memfit.passes.checkpointing import segments
from memfit.passes.rematerialize import SchedulePlan, rematerialize, smallest_peak
from memfit.testing.exact_schedule import exact_schedule
from memfit.testing.strategies import chain, convolutional, mlp, random_graph, transformer

HERE = Path(__file__).parent


def plan_at(graph: Graph, budget: int) -> SchedulePlan | None:
    try:
        return rematerialize(graph, budget)
    except BudgetError:
        return None


def budget_at(graph: Graph, fraction: float) -> int:
    peak = simulate(graph, range(len(graph.ops))).peak
    return int(graph.base_bytes + fraction * (peak - graph.base_bytes))


def small_graphs(quick: bool) -> list[tuple[str, Graph]]:
    rows = [
        ("chain of 8", chain(8)),
        ("chain of 14", chain(14)),
        ("mlp, 4 layers", mlp(4)),
        ("mlp, 5 layers, bias", mlp(5, batch=1024, bias=True)),
        ("mlp, 6 layers, narrow", mlp(6, width=64, batch=1024)),
        ("transformer block", transformer(1, vocabulary=512)),
        ("transformer block, dropout", transformer(1, vocabulary=256, dropout=True)),
        ("residual block", convolutional(1)),
    ]
    rows += [(f"random {seed}", random_graph(seed, 12 + seed % 20)) for seed in range(4 if quick else 24)]
    return [(name, graph) for name, graph in rows if len(graph.ops) <= 45]


def exact_table(quick: bool) -> dict[str, object]:
    rows = []
    for name, graph in small_graphs(quick):
        for fraction in (0.9, 0.8, 0.7, 0.6, 0.5):
            budget = budget_at(graph, fraction)
            plan = plan_at(graph, budget)
            limit = 10 if quick else 60
            program = exact_schedule(graph, budget, time_limit=limit)
            baseline = sum(op.seconds for op in graph.ops)
            row: dict[str, object] = {
                "graph": name, "ops": len(graph.ops), "budget_fraction": fraction,
                "plan": None if plan is None else plan.seconds / baseline,
                "optimum_program_order": program.seconds / baseline if program.schedule else None,
                "proven": program.proven or program.infeasible,
            }  # fmt: skip
            if plan is not None:
                order = list(dict.fromkeys(plan.schedule))
                own = exact_schedule(graph, budget, order=order, time_limit=limit)
                best = min(own.seconds, program.seconds)
                row |= {
                    "optimum_own_order": own.seconds / baseline if own.schedule else None,
                    "distance": (plan.seconds - best) / baseline if own.proven and best < float("inf") else None,
                }
            rows.append(row)
            if plan is None and program.infeasible:
                break
    distances = [d for row in rows if isinstance(d := row.get("distance"), float)]
    missed = [r for r in rows if r["plan"] is None and r["optimum_program_order"] is not None]
    return {
        "rows": rows, "cases": len(distances), "missed": len(missed),
        "mean_distance": statistics.mean(max(0.0, d) for d in distances),
        "worst_distance": max(distances),
    }  # fmt: skip


def real_table() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for path in sorted((HERE / "instances").glob("*.json.gz")):
        graph = Graph.from_json(json.loads(gzip.decompress(path.read_bytes())))
        baseline = simulate(graph, range(len(graph.ops)))
        peers = []
        forward = sum(op.phase == "forward" for op in graph.ops)
        for count in sorted({2, 3, 4, 6, 8, 12, 16, int(forward**0.5)}):
            schedule = segments(graph, count)
            if not why_invalid(graph, schedule):
                peers.append(simulate(graph, schedule))
        span = baseline.peak - graph.base_bytes
        for fraction in (0.2, 0.27, 0.32, 0.37, 0.45, 0.46, 0.52, 0.6, 0.8):
            budget = budget_at(graph, fraction)
            began = time.process_time()
            plan = plan_at(graph, budget)
            spent = time.process_time() - began
            fitting = [peer.seconds for peer in peers if peer.peak <= budget]
            rows.append({
                "graph": path.name.removesuffix(".json.gz"), "ops": len(graph.ops), "budget_fraction": fraction,
                "extra_seconds": None if plan is None else plan.seconds / baseline.seconds - 1,
                "strategy": None if plan is None else plan.strategy,
                "segments_extra_seconds": min(fitting) / baseline.seconds - 1 if fitting else None,
                "smallest_fraction": (smallest_peak(graph).peak - graph.base_bytes) / span,
                "planning_seconds": spent,
            })  # fmt: skip
    return rows


def seconds_table() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for blocks in (36, 360):
        for name, graph in (("transformer", transformer(blocks)), ("convolutional", convolutional(int(blocks * 1.5)))):
            budget = budget_at(graph, 0.4)
            began = time.process_time()
            plan = plan_at(graph, budget)
            rows.append({
                "graph": name, "ops": len(graph.ops), "planning_seconds": time.process_time() - began,
                "extra_seconds": None if plan is None else plan.seconds / plan.baseline_seconds - 1,
            })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer graphs, shorter limits")
    quick = parser.parse_args().quick
    seconds, real, exact = seconds_table(), real_table(), exact_table(quick)
    for row in [*seconds, *real]:
        print(row)
    print({key: value for key, value in exact.items() if key != "rows"})
    record.write("planner", {"seconds": seconds, "real": real, "exact": exact})


if __name__ == "__main__":
    main()
