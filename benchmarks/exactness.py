"""Same bits or not, per architecture, dropout on: memfit, torch's activation memory budget, block checkpointing.

    python benchmarks/exactness.py [--only gpt2,resnet]

One training step from the same seed, each side on a model of its own. memfit runs a quarter of the way from its smallest
feasible peak to the program's own, so that it has to recompute; torch's ``activation_memory_budget`` (aot_eager) is 0.3.
Compared with eager: loss, every gradient, every buffer. A difference is stated relative to the largest value.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import zoo

from memfit import Step
from memfit.frameworks.torch.fitted import FittedStep, measured_program
from memfit.frameworks.torch.steps import run_step
from memfit.passes.rematerialize import smallest_peak

NAMES = ("gpt2", "bert", "vit", "t5", "llama", "mixtral", "whisper", "resnet", "swin", "mamba")


def outcome(step: Step, run: Callable[[], Any]) -> dict[str, torch.Tensor]:
    """What one step from a fixed seed leaves."""
    step.model.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    rows = {"loss": run().detach().clone()}
    rows |= {f"gradient {n}": p.grad.clone() for n, p in step.model.named_parameters() if p.grad is not None}
    rows |= {f"buffer {n}": b.clone() for n, b in step.model.named_buffers()}
    rows["random state"] = torch.get_rng_state()
    return rows


def difference(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Whether all bits are equal; else the worst value and by how much."""
    worst, where, same = 0.0, "", expected.keys() == found.keys()
    for name in expected.keys() & found.keys():
        a, b = expected[name], found[name]
        if not torch.equal(a, b):
            same = False
            scale = float(a.double().abs().max()) or 1.0
            error = float((a.double() - b.double()).abs().max()) / scale
            if error > worst:
                worst, where = error, name
    return {"identical": same, "largest_relative_difference": worst, "where": where}


def memfit_side(step: Step) -> Callable[[], Any]:
    _, program = measured_program(step)
    plan = smallest_peak(program.graph)
    return FittedStep(step, plan.peak + (plan.baseline_peak - plan.peak) // 4)


def torch_side(step: Step) -> Callable[[], Any]:
    import torch._functorch.config as config

    torch._dynamo.reset()
    twin = Step(torch.compile(step.model, backend="aot_eager", dynamic=False), step.inputs, step.loss, None, True)
    config.activation_memory_budget = 0.3
    return lambda: run_step(twin)


def checkpoint_side(step: Step) -> Callable[[], Any]:
    from torch.utils.checkpoint import checkpoint

    lists = [
        m for m in step.model.modules() if isinstance(m, (torch.nn.ModuleList, torch.nn.Sequential)) and len(m) > 1
    ]
    for block in lists[0]:
        block.forward = (lambda f: lambda *a, **k: checkpoint(f, *a, use_reentrant=False, **k))(block.forward)
    return lambda: run_step(step)


SIDES = {"memfit": memfit_side, "torch_budget": torch_side, "block_checkpoint": checkpoint_side}


def main() -> None:
    """Run every architecture and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(NAMES))
    rows = []
    for name in parser.parse_args().only.split(","):
        torch.manual_seed(0)
        step = getattr(zoo, name)(optimizer="none")
        step.model.train()
        for module in step.model.modules():
            if isinstance(module, torch.nn.Dropout) and module.p == 0:
                module.p = 0.1
        step = Step(step.model, step.inputs, step.loss, None, True)
        first = Step(copy.deepcopy(step.model), step.inputs, step.loss, None, True)
        expected = outcome(first, lambda s=first: run_step(s))  # type: ignore[misc]
        row: dict[str, Any] = {"architecture": name}
        for side, prepare in SIDES.items():
            mine = Step(copy.deepcopy(step.model), step.inputs, step.loss, None, True)
            try:
                row[side] = difference(expected, outcome(mine, prepare(mine)))
            except Exception as error:
                row[side] = {
                    "failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]
                }
            finally:
                torch._functorch.config.activation_memory_budget = 1.0
        rows.append(row)
        words = [f"{side}: {said(row[side])}" for side in SIDES]
        print(f"{name:10}" + "   ".join(words), flush=True)
    print("wrote", record.write("exactness", {"rows": rows}))


def said(found: dict[str, Any]) -> str:
    """One side in words."""
    if "failed" in found:
        return f"failed ({found['failed'][:30]})"
    return (
        "identical"
        if found["identical"]
        else f"off by {found['largest_relative_difference']:.2g} ({found['where'][:24]})"
    )


if __name__ == "__main__":
    main()
