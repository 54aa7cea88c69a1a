"""One side of a verification, in a fresh process: build the step from its seed, run it, report what it did.

Started as ``python -m memfit.frameworks.torch.worker REQUEST RESULT`` with JSON files. Reports per step the loss, process
CPU seconds and the peak of all tensors (allocator hook), and at the end digests of every gradient, parameter, buffer,
optimizer state and of the random state; with ``dump`` their values too, for the error of inexact levers. An optimizer
clears its gradients: those of one more step, which is not measured, are taken as it is given them.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from memfit.errors import MemfitError
from memfit.frameworks.target import build_step
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.steps import run_step
from memfit.ir.step import Step


def main(request_path: str, result_path: str) -> int:
    """Run the request; the result file holds ``{"error": ...}`` where the step could not run."""
    request = json.loads(Path(request_path).read_text())
    try:
        result = run(request)
    except MemfitError as error:
        result = {"error": {"kind": type(error).__name__, "message": str(error)}}
    except MemoryError as error:
        result = {"error": {"kind": "MemoryError", "message": str(error)}}
    except RuntimeError as error:
        result = {"error": {"kind": "RuntimeError", "message": str(error)}}
    Path(result_path).write_text(json.dumps(result))
    return 0


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Losses, seconds and peaks per step, and digests of the state after the last one."""
    if request.get("threads"):
        torch.set_num_threads(int(request["threads"]))
    allocator_hook.install()
    torch.manual_seed(request["seed"])
    np.random.seed(request["seed"])
    step = build_step(request["target"], request["settings"])
    step_function = _step_function(step, request)
    torch.manual_seed(request["seed"] + 1)
    np.random.seed(request["seed"] + 1)
    if request.get("memory_limit_above"):
        _limit_memory(int(request["memory_limit_above"]))
    losses, seconds, peaks = [], [], []
    for _ in range(request["steps"]):
        allocator_hook.reset_peak()
        start = time.process_time()
        outcome = step_function()
        seconds.append(time.process_time() - start)
        peaks.append(allocator_hook.peak_bytes())
        value = float(outcome) if isinstance(outcome, torch.Tensor) and outcome.numel() == 1 else None
        losses.append({"digest": _digest_of(outcome), "value": value})
        del outcome
    state = dict(_state(step))
    if request.get("dump"):
        np.savez(request["dump"], **{name: _numpy(value) for name, value in state.items()})
    digests = {name: _digest(value) for name, value in state.items()}
    if step.optimizer is not None:
        digests |= _gradients_given(step, step_function)
    return {
        "losses": losses, "seconds": seconds, "peaks": peaks, "digests": digests,
        "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def _step_function(step: Step, request: dict[str, Any]) -> Any:
    if request["mode"] == "baseline":
        return lambda: run_step(step)
    from memfit.frameworks.torch.refit import step_from_recipe

    return step_from_recipe(step, request["recipe"])


def _gradients_given(step: Step, step_function: Any) -> dict[str, str]:
    """Digests of the gradients that one more step gives to an optimizer, to all of it or to one parameter at a time."""
    names = {id(parameter): name for name, parameter in step.model.named_parameters()}
    found: dict[str, str] = {}

    def note(optimizer: Any, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    found[f"gradient {names.get(id(parameter), '?')}"] = _digest(parameter.grad)

    # For every optimizer: a hook of this one would keep the fitted step from stepping parameters one by one.
    handle = register_optimizer_step_pre_hook(note)
    try:
        step_function()
    finally:
        handle.remove()
    return found


def _limit_memory(above: int) -> None:
    """A hard limit of the system: ``above`` more bytes of private memory than this process has now."""
    with open("/proc/self/status") as file:
        now = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + above, now + above))


def _state(step: Step) -> Any:
    model = step.model
    if isinstance(model, torch.nn.Module):
        for name, parameter in model.named_parameters():
            yield f"parameter {name}", parameter.detach()
            if parameter.grad is not None:
                yield f"gradient {name}", parameter.grad
        for name, buffer in model.named_buffers():
            yield f"buffer {name}", buffer
        if step.optimizer is not None:
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            for parameter, state in step.optimizer.state.items():
                for key, value in state.items():
                    if isinstance(value, torch.Tensor):
                        yield f"optimizer {names.get(id(parameter), '?')} {key}", value
    yield "random state", torch.get_rng_state()


def _digest_of(outcome: Any) -> str:
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(outcome) if isinstance(leaf, torch.Tensor)]
    return hashlib.blake2b("".join(_digest(tensor) for tensor in tensors).encode(), digest_size=12).hexdigest()


def _digest(tensor: torch.Tensor) -> str:
    plain = tensor.detach().contiguous()
    raw: Any = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else b""
    return hashlib.blake2b(raw, digest_size=12).hexdigest()


def _numpy(tensor: torch.Tensor) -> Any:
    plain = tensor.detach()
    return (plain.float() if plain.dtype in (torch.bfloat16, torch.float16) else plain).numpy()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
