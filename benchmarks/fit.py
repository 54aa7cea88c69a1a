"""Fit against its peers on the steps of the tables: peak bytes and CPU time over eager, interleaved, in one process.

    python benchmarks/fit.py [g r g-adamw resnet50] [--rounds 7]

Peers: block checkpointing (torch.utils.checkpoint every 1, 2, 3 blocks), torch.compile's ``activation_memory_budget`` through
aot_eager (solvers dp and ilp), micro-batches. Peak: allocator hook, above parameters, inputs and optimizer state, gradients
included. Overhead: process CPU time of a step over eager's, round by round, min over min and median of the pairs.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
import torch.utils.checkpoint

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import zoo

from memfit import BudgetError, Step
from memfit.fitting.search import search
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.steps import run_step

MODELS: dict[str, tuple[Callable[[], Step], tuple[float, ...], dict[float, float]]] = {
    "g": (
        lambda: zoo.g(optimizer="none", dropout=0.0),
        (0.46, 0.37, 0.32, 0.27),
        {0.46: 6, 0.37: 11, 0.32: 14, 0.27: 18},
    ),
    "r": (lambda: zoo.r(optimizer="none"), (0.52, 0.45), {0.52: 8, 0.45: 12}),
    "g-adamw": (lambda: zoo.g(optimizer="adamw", dropout=0.0), (0.20,), {0.20: 20}),
    "resnet50": (lambda: zoo.resnet50(optimizer="none", batch=32, size=128), (1 / 3,), {1 / 3: 12}),
}


OTHER_LEVERS: dict[str, tuple[tuple[str, ...], ...]] = {"resnet50": (("offload",),)}


def held(step: Step) -> int:
    """Bytes of parameters, buffers, inputs and optimizer state."""
    from memfit.frameworks.torch.step_meter import held_bytes

    for parameter in step.model.parameters():
        parameter.grad = None
    return held_bytes(step)


def peak_of(step: Step, run: Callable[[], Any]) -> int:
    """Peak bytes above what the step holds before it."""
    if step.optimizer is None:
        step.model.zero_grad(set_to_none=True)
    gc.collect()
    before = allocator_hook.live_bytes()
    allocator_hook.reset_peak()
    run()
    return allocator_hook.peak_bytes() - before


def compare(eager: Callable[[], Any], other: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """CPU seconds of both, interleaved."""
    a, b = [], []
    for _ in range(rounds):
        for run, kept in ((eager, a), (other, b)):
            start = time.process_time()
            run()
            kept.append(time.process_time() - start)
    ratios = sorted(y / x for x, y in zip(a, b, strict=True))
    return {
        "eager_seconds": min(a), "seconds": min(b), "overhead_min": min(b) / min(a) - 1,
        "overhead_median": statistics.median(ratios) - 1, "overhead_spread": [ratios[0] - 1, ratios[-1] - 1], "rounds": rounds,
    }  # fmt: skip


def checkpointed(step: Step, every: int) -> Callable[[], Any] | None:
    """Block checkpointing as users write it: segments of ``every`` blocks, each run again in backward."""
    lists = (
        m for m in step.model.modules() if isinstance(m, (torch.nn.ModuleList, torch.nn.Sequential)) and len(m) >= 6
    )
    blocks = next(lists, None)
    if blocks is None:
        return None
    originals = [block.forward for block in blocks]

    def segment(first: int) -> Callable[[Any], Any]:
        def through(x: Any) -> Any:
            for original in originals[first : first + every]:
                x = original(x)
            return x

        return lambda x: torch.utils.checkpoint.checkpoint(through, x, use_reentrant=False)

    def run() -> Any:
        for i, block in enumerate(blocks):
            block.forward = segment(i) if i % every == 0 else lambda x: x
        try:
            return run_step(step)
        finally:
            for block, original in zip(blocks, originals, strict=True):
                block.forward = original

    return run


def compiled(step: Step, budget: float, solver: str) -> Callable[[], Any]:
    """torch.compile with its own activation memory budget."""
    import torch._functorch.config as config

    torch._dynamo.reset()
    model = torch.compile(step.model, backend="aot_eager", dynamic=False)
    twin = Step(model, step.inputs, step.loss, step.optimizer, step.train)
    config.activation_memory_budget = budget
    config.activation_memory_budget_solver = solver
    try:
        run_step(twin)
    finally:
        config.activation_memory_budget = 1.0
    return lambda: run_step(twin)


def measure(name: str, rounds: int, peers: bool) -> dict[str, Any]:
    """One table."""
    build, fractions, wanted = MODELS[name]
    torch.manual_seed(0)
    with allocator_hook.installed():
        step = build()
        torch.manual_seed(1)
        run_step(step)
        eager = lambda: run_step(step)  # noqa: E731
        eager_peak = peak_of(step, eager)
        base = held(step)
        rows: list[dict[str, Any]] = []
        print(f"{name}: eager peak {eager_peak / 1e6:.1f} MB above {base / 1e6:.1f} MB held", flush=True)

        def add(method: str, run: Callable[[], Any], **more: Any) -> None:
            run()
            peak = peak_of(step, run)
            row = {"method": method, "peak": peak, "fraction": peak / eager_peak, **compare(eager, run, rounds), **more}
            rows.append(row)
            print(
                f"  {method:34} {peak / 1e6:8.1f} MB  {row['fraction']:.3f}  {100 * row['overhead_min']:+6.1f} % min "
                f"{100 * row['overhead_median']:+6.1f} % median", flush=True,
            )  # fmt: skip

        for fraction, levers in [(f, levers) for f in fractions for levers in (None, *OTHER_LEVERS.get(name, ()))]:
            budget = int(base + fraction * eager_peak)
            start = time.process_time()
            label = f"memfit {fraction:.2f}" + (f" with {' '.join(levers)}" if levers else "")
            try:
                choice = search(step, budget, levers=levers or ())
            except BudgetError as error:
                rows.append({"method": label, "infeasible": error.needed - base, "budget": budget - base})
                print(f"  {label}: infeasible, smallest {(error.needed - base) / eager_peak:.3f}", flush=True)
                continue
            add(
                label, choice.run, budget=budget - base, wanted_overhead=wanted[fraction] / 100,
                projected_overhead=choice.seconds / choice.baseline_seconds - 1, projected_peak=choice.peak - base,
                plan_and_capture_cpu_seconds=time.process_time() - start, plan_cpu_seconds=choice.plan_seconds,
                options=choice.options,
            )  # fmt: skip
            del choice
            if not rows[-1]["peak"] <= budget - base:
                rows[-1]["over_budget"] = True
        if peers:
            for every in (1, 2, 3):
                run = checkpointed(step, every)
                if run is not None:
                    add(f"checkpoint every {every}", run)
            for solver, values in (("dp", (0.5, 0.2)), ("ilp", (0.5, 0.4, 0.3, 0.2, 0.1))):
                for value in values:
                    try:
                        add(f"torch budget {value} {solver}", compiled(step, value, solver))
                    except Exception as error:
                        rows.append(
                            {
                                "method": f"torch budget {value} {solver}",
                                "failed": f"{type(error).__name__}: {error}"[:200],
                            }
                        )
                        print(f"  torch budget {value} {solver}: {type(error).__name__}", flush=True)
    return {"model": name, "eager_peak": eager_peak, "held": base, "rows": rows}


def main() -> None:
    """Run the named tables and write their result files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    for name in options.models or list(MODELS):
        table = measure(
            name,
            options.rounds if name != "resnet50" else min(3, options.rounds),
            not options.no_peers and name != "resnet50",
        )
        print("wrote", record.write(f"fit-{name}", {"threads": torch.get_num_threads(), **table}))


if __name__ == "__main__":
    main()
