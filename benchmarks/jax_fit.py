"""A step of eight transformer layers in JAX on a CPU within a budget: `memfit fit`, and `jax.checkpoint` as users write it.

--budget is on temporaries, which are XLA's own buffer assignment: `memfit fit` is given that, arguments and results. Its recipe
is then verified: loss and every gradient of the fitted step against those of the step as it is. Each side is compiled and run
in a process of its own; measured bytes are the growth of resident memory while steps run, and the arguments (more than XLA
assigns: packed operands, memory of threads); seconds are process CPU seconds of a step (median, the first left out), the sides
one after another in each of --repeats rounds. The result is written after each round.

    python benchmarks/jax_fit.py [--budget 480MiB] [--repeats 2]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from memfit.ir.step import Step

LAYERS, WIDTH, HEADS, BATCH, SEQUENCE = 8, 512, 8, 4, 512


def block(p: Any, x: Any) -> Any:
    """Attention and a feed-forward part, each beside what it is added to."""

    def heads(name: str) -> Any:
        return (x @ p[name]).reshape(BATCH, SEQUENCE, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)

    weights = jax.nn.softmax(heads("q") @ heads("k").swapaxes(-1, -2) / 8.0, -1)
    x = x + (weights @ heads("v")).transpose(0, 2, 1, 3).reshape(x.shape) @ p["o"]
    return x + jax.nn.gelu(x @ p["wide"]) @ p["narrow"]


def plain(params: Any, x: Any) -> Any:
    """The layers one after another."""
    for p in params:
        x = block(p, x)
    return x


def recomputed(params: Any, x: Any) -> Any:
    """The same with every layer under `jax.checkpoint`."""
    for p in params:
        x = jax.checkpoint(block)(p, x)
    return x


def step(model: Any = plain) -> Step:
    """A training step of the layers."""
    shapes = {**dict.fromkeys("qkvo", (WIDTH, WIDTH)), "wide": (WIDTH, 4 * WIDTH), "narrow": (4 * WIDTH, WIDTH)}
    keys = iter(jax.random.split(jax.random.key(0), LAYERS * len(shapes) + 1))
    params = [{n: jax.random.normal(next(keys), s) * 0.02 for n, s in shapes.items()} for _ in range(LAYERS)]
    return Step(model, (params, jax.random.normal(next(keys), (BATCH, SEQUENCE, WIDTH))), loss=lambda y: jnp.mean(y**2))


def checkpointed() -> Step:
    """What a user writes."""
    return step(recomputed)


def main() -> None:
    """Fit, run all sides, write the result."""
    import record

    from memfit.api.fitted_jax import fit_jax_target
    from memfit.fitting.verify import run_side, verify
    from memfit.frameworks.jax.compiled import compile_step
    from memfit.frameworks.jax.steps import jax_step
    from memfit.units import parse_bytes

    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", default="480MiB")
    parser.add_argument("--repeats", type=int, default=2, help="rounds; what is verified with is not one of them")
    arguments = parser.parse_args()
    target, worker = f"{Path(__file__).resolve()}:", "memfit.frameworks.jax.worker"
    begun = time.perf_counter()

    def say(text: str, done: int | None = None, total: int | None = None) -> None:
        print(f"{time.perf_counter() - begun:6.1f} s  {text}", flush=True)

    whole, users = jax_step(step()), jax_step(checkpointed())
    compiled = {
        "as it is": compile_step(whole.whole(), whole.arguments()),
        "jax.checkpoint": compile_step(users.whole(), users.arguments()),
        "jax.checkpoint, lean": compile_step(users.whole(), users.arguments(), lean=True),
    }
    held = compiled["as it is"].arguments + compiled["as it is"].outputs
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        recipe = str(Path(folder) / "recipe.json")
        report = fit_jax_target(
            target + "step", step(), lambda measured: parse_bytes(arguments.budget) + held, settings={}, verify=False,
            needs_baseline=False, recipe=recipe, steps=2, progress=say,
        )  # fmt: skip
        say("verifying loss and gradients")
        checked = verify(target + "step", {}, recipe, steps=2, inexact=True, worker=worker)
        assert checked.exact or checked.max_error <= 1e-3, checked
        requests = {
            "as it is": {"target": target + "step", "mode": "baseline"},
            "jax.checkpoint": {"target": target + "checkpointed", "mode": "baseline"},
            "memfit fit": {"target": target + "step", "mode": "fitted", "recipe": recipe},
        }
        for number in range(arguments.repeats):
            found: dict[str, Any] = {}
            for name, request in requests.items():
                say(f"round {number + 1}: {name}")
                side = run_side({**request, "settings": {}, "steps": 2}, worker=worker)
                found[name] = {"peak": side.peak, "step_seconds": side.step_seconds}
            rounds.append(found)
            print(found, flush=True)
            ratios = [r["memfit fit"]["step_seconds"] / r["as it is"]["step_seconds"] for r in rounds]
            result = {
                "repeats": len(rounds),
                "budget_of_temporaries": parse_bytes(arguments.budget),
                "arguments_and_results": held,
                "budget": report.budget,
                "temporaries": {
                    **{name: side.temporaries for name, side in compiled.items()},
                    "memfit fit": report.fitted.projected_peak - held,
                },
                "rounds": rounds,
                "time_ratio": {"median": statistics.median(ratios), "spread": max(ratios) - min(ratios)},
                "levers": [lever.to_json() for lever in report.levers],
                "verified": {**checked.checks, "exact": checked.exact, "max_error": checked.max_error},
                "plan_seconds": report.plan_seconds,
                "seconds": time.perf_counter() - begun,
            }
            print(record.write("jax-fit", result))


if __name__ == "__main__":
    main()
