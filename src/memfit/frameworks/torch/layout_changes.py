"""Changes of a step that move fewer bytes: channels last, batch norms folded, copies left out, fused kernels.

Each is made on a copy of the model and gives a function that runs the changed step; whoever asks times it beside the original
and compares ``result_of`` of both (``difference``). Inputs stay as the user has them: what a change needs of them is done
within the timed step.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves, tree_map

from memfit.errors import TargetError
from memfit.frameworks.torch.steps import autocast_of, call_model, is_training, loss_of
from memfit.ir.step import Step

CHANNELS_LAST = "channels_last"
FOLD = "batch norms folded"
COPIES = "copies left out"
FUSED = "fused"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ALLOWED = {torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Differences, of the largest magnitude, that sums in another order make; float32: 1e-3."""
_NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}


@dataclass
class LayoutRun:
    """A step under some changes, ready to run."""

    step: Step
    changes: tuple[str, ...] = ()

    def __call__(self) -> Any:
        """Run it once: the output, or the loss of a training step, gradients left in the parameters."""
        step = self.step
        inputs = step.inputs
        if CHANNELS_LAST in self.changes:
            inputs = tree_map(_last, inputs)
        with _without_copies() if COPIES in self.changes else contextlib.nullcontext():
            if not is_training(step):
                with torch.no_grad(), autocast_of(step):
                    return call_model(step.model, inputs)
            step.model.zero_grad(set_to_none=True)
            with autocast_of(step):
                loss = loss_of(step, call_model(step.model, inputs))
            loss.backward()
            return loss.detach()

    def seconds(self) -> float:
        """Wall seconds of one run."""
        start = time.perf_counter()
        self()
        return time.perf_counter() - start


def plain_run(step: Step) -> LayoutRun:
    """The step as its user wrote it, without its optimizer, on a copy of the model: running it changes nothing of the user's.

    Raises:
        TargetError: the model is no module, is not on the processor, or the step runs itself.
    """
    if not isinstance(step.model, nn.Module) or step.run is not None:
        raise TargetError(
            "step", "its layouts can be changed only where memfit runs the model", "return a torch.nn.Module, no run"
        )
    run = LayoutRun(replace(step, model=copy.deepcopy(step.model), optimizer=None))
    elsewhere = sorted({str(tensor.device) for tensor in kept_tensors(run) if tensor.device.type != "cpu"})
    if elsewhere:
        raise TargetError(
            "step", f"it is on {', '.join(elsewhere)}, and layouts are judged on this machine's processor",
            "build the model and its inputs on the CPU",
        )  # fmt: skip
    return run


def kept_tensors(run: LayoutRun) -> list[torch.Tensor]:
    """Parameters, buffers and inputs: what exists before and after each run."""
    model = run.step.model
    inputs = [leaf for leaf in tree_leaves(run.step.inputs) if isinstance(leaf, torch.Tensor)]
    return [*model.parameters(), *model.buffers(), *inputs]


def possible(run: LayoutRun) -> list[str]:
    """Changes that this step has room for, judged by its modules and one run of it."""
    model = run.step.model
    found = []
    leaves = [leaf for leaf in tree_leaves(run.step.inputs) if isinstance(leaf, torch.Tensor)]
    pictures = any(isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) for m in model.modules())
    if pictures and any(leaf.dim() == 4 for leaf in leaves):
        found.append(CHANNELS_LAST)
    if not is_training(run.step) and _pairs(run):
        found.append(FOLD)
    if _asked_copies(run):
        found.append(COPIES)
    return found


def changed(run: LayoutRun, changes: tuple[str, ...]) -> LayoutRun:
    """The step under ``changes``, on a copy of its model; what compiles does so at its first run."""
    model = copy.deepcopy(run.step.model)
    if FOLD in changes:
        _fold(model, _pairs(run))
    if CHANNELS_LAST in changes:
        model = model.to(memory_format=torch.channels_last)
    if FUSED in changes:
        model = torch.compile(model, dynamic=False)
    return LayoutRun(replace(run.step, model=model), changes)


@dataclass(frozen=True)
class StepResult:
    """What a step gave: its outputs, and the gradients of a training step."""

    outputs: list[torch.Tensor]
    gradients: list[torch.Tensor]


def result_of(run: LayoutRun) -> StepResult:
    """Outputs and gradients, drawn with the same random numbers in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = [leaf.detach().clone() for leaf in tree_leaves(_plain(run())) if isinstance(leaf, torch.Tensor)]
    if not is_training(run.step):
        return StepResult(outputs, [])
    return StepResult(outputs, [p.grad.detach().clone() for p in run.step.model.parameters() if p.grad is not None])


def difference(first: StepResult, second: StepResult) -> float:
    """The largest difference over the largest magnitude, of each output and of all gradients together, over what rounding in
    their type allows (``_ALLOWED``): above 1.0 results differ, infinite where they do not match, 0.0: the same bits."""
    groups = [([a], [b]) for a, b in zip(first.outputs, second.outputs, strict=False)]
    groups.append((first.gradients, second.gradients))
    if len(first.outputs) != len(second.outputs) or len(first.gradients) != len(second.gradients):
        return math.inf
    return max(_difference(a, b) for a, b in groups)


def _difference(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    if all(a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        return 0.0
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(first, second, strict=True)):
        return math.inf
    pairs = [(a.double(), b.double()) for a, b in zip(first, second, strict=True) if a.numel()]
    scale = max(max(float(a.abs().max()) for a, _ in pairs), 1e-12)
    off = max(float((a - b).abs().max()) for a, b in pairs) / scale
    allowed = max(_ALLOWED.get(a.dtype, 1e-3) for a in first)
    return off / allowed if math.isfinite(off) else math.inf


def _plain(value: Any) -> Any:
    """Model outputs of libraries as plain containers."""
    return dict(value) if hasattr(value, "keys") and hasattr(value, "__getitem__") else value


def _last(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _pairs(run: LayoutRun) -> list[tuple[str, str]]:
    """(convolution, batch norm) by name, where the norm alone reads what the convolution gives, seen in one run."""
    model = run.step.model
    norms = {
        name for name, m in model.named_modules() if type(m) in _NORMS and not m.training and m.track_running_stats
    }
    if not norms:
        return []
    made: dict[int, str] = {}
    kept: list[torch.Tensor] = []
    read: Counter[int] = Counter()
    calls: Counter[str] = Counter()
    pairs: list[tuple[str, str, int]] = []

    def before(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            calls[name] += 1
            for leaf in given:
                if isinstance(leaf, torch.Tensor):
                    read[id(leaf)] += 1
                    if name in norms and id(leaf) in made:
                        pairs.append((made[id(leaf)], name, id(leaf)))

        return hook

    def after(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and isinstance(module, _CONVOLUTIONS):
                made[id(output)] = name
                kept.append(output)

        return hook

    leaves = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    handles = [m.register_forward_pre_hook(before(name)) for name, m in leaves]
    handles += [m.register_forward_hook(after(name)) for name, m in leaves]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return [(a, b) for a, b, place in pairs if calls[a] == calls[b] == 1 and read[place] == 1]


def _fold(model: nn.Module, pairs: list[tuple[str, str]]) -> None:
    for first, second in pairs:
        folded = fuse_conv_bn_eval(model.get_submodule(first), model.get_submodule(second))
        _put(model, first, folded)
        _put(model, second, nn.Identity())


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _asked_copies(run: LayoutRun) -> int:
    """How many calls of ``.contiguous()`` in one run copy something."""
    count = 0
    original = torch.Tensor.contiguous

    def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal count
        count += not args and not kwargs and not tensor.is_contiguous()
        return original(tensor, *args, **kwargs)

    with _patched("contiguous", counted):
        run()
    return count


@contextlib.contextmanager
def _patched(name: str, function: Callable[..., Any]) -> Iterator[None]:
    own = torch.Tensor.__dict__.get(name)
    setattr(torch.Tensor, name, function)
    try:
        yield
    finally:
        if own is None:
            delattr(torch.Tensor, name)
        else:
            setattr(torch.Tensor, name, own)


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """``.contiguous()`` gives the tensor itself; a ``view`` that then cannot be one copies, as ``reshape`` does."""
    contiguous, view = torch.Tensor.contiguous, torch.Tensor.view

    def same(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return contiguous(tensor, *args, **kwargs) if args or kwargs else tensor

    def viewed(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        try:
            return view(tensor, *args, **kwargs)
        except RuntimeError:
            return tensor.reshape(*args, **kwargs)

    with _patched("contiguous", same), _patched("view", viewed):
        yield
