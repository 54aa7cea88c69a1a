"""Is every feasible budget kept? Every architecture of the zoo, budgets from its smallest feasible peak upwards.

    python benchmarks/budgets.py [--only gpt2,r]

Per architecture one AdamW training step, dropout as configured, budgets at 0, 20, 45, 70 % of the way from the smallest
feasible peak to the program's own. Measured by the allocator hook: the peak of a steady step, against budget and
projection; loss, parameters and buffers after two steps are compared bit by bit with an eager twin. Programs that are no
single graph are fitted by modules at 80 % of their measured peak.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import zoo

from memfit import BudgetError, CaptureError, Step
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.fitted import FittedStep, measured_program
from memfit.frameworks.torch.held import held_beside
from memfit.frameworks.torch.modulewise import fit_modules
from memfit.frameworks.torch.step_meter import measure
from memfit.frameworks.torch.steps import run_step
from memfit.passes.rematerialize import smallest_peak

SHARES = (0.0, 0.2, 0.45, 0.7)


def twin_of(step: Step) -> Step:
    """A second copy of the whole step, optimizer included."""
    return copy.deepcopy(step)


def same_after(steps: int, eager: Step, fitted: Any, other: Step) -> bool:
    """Whether both leave the same loss, parameters and buffers."""
    for number in range(steps):
        seed(number)
        expected = run_step(eager)
        seed(number)
        if not torch.equal(expected, fitted()):
            return False
    pairs = zip(eager.model.state_dict().items(), other.model.state_dict().items(), strict=True)
    return all(torch.equal(a, b) for (_, a), (_, b) in pairs)


def seed(number: int) -> None:
    """All random numbers that a step may draw, NumPy's too (speech models mask with them)."""
    torch.manual_seed(number)
    np.random.seed(number)


def steady_peak(fitted: Any) -> int:
    """Bytes above what lives before, of one step."""
    gc.collect()
    live = allocator_hook.live_bytes()
    allocator_hook.reset_peak()
    loss = fitted()
    del loss
    return allocator_hook.peak_bytes() - live


def graph_rows(name: str, step: Step, held: int) -> list[dict[str, Any]]:
    """One row per budget."""
    _, program = measured_program(step)
    floor = smallest_peak(program.graph)
    rows = []
    for share in SHARES:
        budget = floor.peak + int(share * (floor.baseline_peak - floor.peak))
        eager, mine = twin_of(step), twin_of(step)
        started = time.process_time()
        fitted = FittedStep(mine, budget)
        seconds = time.process_time() - started
        same = same_after(2, eager, fitted, mine)
        plan, graph = fitted.first.plan, fitted.first.program.graph
        # What a step draws outside of torch are inputs of the graph that the step itself makes: in its peak already.
        drawn = sum(s.nbytes for s in graph.storages if s.constant and s.label.startswith("drawn "))
        above = steady_peak(fitted) - drawn
        rows.append({
            "architecture": name, "by": "graph", "share": share, "budget": budget, "projected": plan.peak,
            "measured": above + graph.base_bytes, "kept": above + graph.base_bytes <= budget, "identical": same,
            "overhead_projected": plan.seconds / plan.baseline_seconds - 1, "plan_cpu_seconds": fitted.first.plan_seconds,
            "capture_and_plan_cpu_seconds": seconds, "ops": len(graph.ops), "of_own_peak": budget / floor.baseline_peak,
        })  # fmt: skip
    return rows


def module_rows(name: str, step: Step, why: str) -> list[dict[str, Any]]:
    """The fallback, at 80 % of the measured peak."""
    eager = twin_of(step)
    plain = measure(eager, lambda: run_step(eager))
    budget = int(0.8 * plain.peak)
    mine = twin_of(step)
    try:
        plan = fit_modules(mine, budget)
    except BudgetError as error:
        return [{"architecture": name, "by": "modules", "why": why, "budget": budget, "smallest": error.needed}]
    row = {"architecture": name, "by": "modules", "why": why, "budget": budget, "measured": plan.measured_peak}
    return [{**row, "projected": plan.projected_peak, "kept": plan.measured_peak <= budget, "identical": plan.exact}]


def main() -> None:
    """Run all and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(zoo.ARCHITECTURES))
    rows: list[dict[str, Any]] = []
    torch.set_num_threads(1)
    for name in parser.parse_args().only.split(","):
        torch.manual_seed(0)
        with allocator_hook.installed():
            before = allocator_hook.live_bytes()
            step = getattr(zoo, name)(optimizer="adamw")
            held = held_beside(step, allocator_hook.live_bytes() - before)
            try:
                fresh = graph_rows(name, step, held)
            except CaptureError as error:
                fresh = module_rows(name, step, error.why)
            except Exception as error:
                fresh = [{"architecture": name, "failed": f"{type(error).__name__}: {error}"[:300]}]
        rows += fresh
        for row in fresh:
            print({k: v for k, v in row.items() if k not in ("architecture", "by")} | {"": name}, flush=True)
    done = [row for row in rows if "kept" in row]
    errors = sorted(abs(row["projected"] / row["measured"] - 1) for row in done if row["by"] == "graph")
    monotone = all(
        a["overhead_projected"] >= b["overhead_projected"] - 1e-9
        for _, group in itertools.groupby([r for r in done if r["by"] == "graph"], key=lambda r: r["architecture"])
        for a, b in itertools.pairwise(list(group))
    )
    summary = {
        "rows": len(rows), "kept": sum(row["kept"] for row in done), "of": len(done),
        "identical": sum(row["identical"] for row in done), "projection_error_worst": errors[-1] if errors else None,
        "projection_error_median": errors[len(errors) // 2] if errors else None, "seconds_fall_as_budget_grows": monotone,
        "failed": [row["architecture"] for row in rows if "failed" in row],
    }  # fmt: skip
    print(summary)
    print("wrote", record.write("budgets", {"summary": summary, "rows": rows}))


if __name__ == "__main__":
    main()
