"""What-if: the same step traced once more with one thing changed, as if the user had followed the advice.

A change is applied by position (the n-th module call, save or backward of a step), which is the same in both traces, as
they run the same program. Its worth is the difference of the two traces: exact where the advice is what was applied.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from memfit.frameworks.torch.hollow import hollow_storage, hollow_tensor, storage_bytes
from memfit.frameworks.torch.tape_mode import Tape
from memfit.ir.step import Step


class Change:
    """An observer that changes one thing; this base counts calls, and changes nothing."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._counts: dict[str, int] = {}

    def tape(self, real: bool) -> Tape:
        """A tape of the usual kind."""
        self._counts.clear()
        return Tape(real=real)

    def begin(self, tape: Tape, step: Step) -> Step:
        """Change the Step, or how it is run."""
        return step

    def after(self, number: int) -> None:
        """Count from nought in the next step."""
        self._counts.clear()

    def end(self) -> None:
        """Undo what was changed."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def number(self, kind: str) -> int:
        """How many of ``kind`` there were in this step before this one."""
        count = self._counts.get(kind, 0)
        self._counts[kind] = count + 1
        return count

    def around(self, owner: Any, name: str, instead: Callable[..., Any]) -> None:
        """Call ``instead(original, *arguments)`` in place of an attribute of ``owner`` until the end."""
        original = owner.__dict__[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            return instead(original, *args, **kwargs)

        setattr(owner, name, call)
        self._undo.append(lambda: setattr(owner, name, original))


class WithoutGraph(Change):
    """These module calls run under ``no_grad``, or in evaluation mode, or both."""

    def __init__(self, calls: Collection[int], *, grad: bool = True, evaluate: bool = False) -> None:
        super().__init__()
        self.calls, self.grad, self.evaluate = frozenset(calls), grad, evaluate

    def begin(self, tape: Tape, step: Step) -> Step:
        """Put the modes around module calls."""
        self.around(nn.Module, "__call__", self._call)
        return step

    def _call(self, original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.number("call") not in self.calls:
            return original(module, *args, **kwargs)
        modes = [(one, one.training) for one in module.modules()]
        if self.evaluate:
            module.eval()
        try:
            with contextlib.nullcontext() if self.grad else torch.no_grad():
                return original(module, *args, **kwargs)
        finally:
            for one, training in modes:
                one.training = training


class Unsaved(Change):
    """These saves keep nothing. Where backward asks for one, it gets a tensor without memory."""

    def __init__(self, saves: Collection[int]) -> None:
        super().__init__()
        self.saves = frozenset(saves)

    def begin(self, tape: Tape, step: Step) -> Step:
        """Pack what is not to be kept into a description."""
        hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        hooks.__enter__()
        self._undo.append(lambda: hooks.__exit__(None, None, None))
        return step

    def _pack(self, tensor: torch.Tensor) -> Any:
        if self.number("save") in self.saves:
            return tuple(tensor.shape), tensor.stride(), tensor.dtype
        return tensor.detach()

    def _unpack(self, packed: Any) -> torch.Tensor:
        if isinstance(packed, torch.Tensor):
            return packed
        shape, stride, dtype = packed
        storage = hollow_storage(storage_bytes(shape, stride, dtype.itemsize))
        with torch.utils._python_dispatch._disable_current_modes():
            return hollow_tensor(storage, shape, stride, dtype)


class Frozen(Change):
    """These parameters of the model, by name, and these inputs, by number, need no gradient."""

    def __init__(self, parameters: Collection[str] = (), inputs: bool = False) -> None:
        super().__init__()
        self.parameters, self.inputs = frozenset(parameters), inputs

    def begin(self, tape: Tape, step: Step) -> Step:
        """Take the gradients away."""
        for name, parameter in step.model.named_parameters() if self.parameters else ():
            if name in self.parameters:
                parameter.requires_grad_(False)
        return replace(step, inputs=_detached(step.inputs)) if self.inputs else step


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach() if value.requires_grad else value
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_detached(item) for item in value)
    return value


class Evaluating(Change):
    """The whole model is in evaluation mode."""

    def begin(self, tape: Tape, step: Step) -> Step:
        """Switch the mode."""
        step.model.eval()
        return step


class ToNone(Change):
    """``zero_grad`` drops the gradients."""

    def begin(self, tape: Tape, step: Step) -> Step:
        """Ask for None in place of zeros."""
        for owner in (nn.Module, torch.optim.Optimizer):
            self.around(owner, "zero_grad", lambda original, one, set_to_none=True: original(one, True))
        return step


class Unretained(Change):
    """These backward calls of each step keep no graph."""

    def __init__(self, calls: Collection[int]) -> None:
        super().__init__()
        self.calls = frozenset(calls)

    def begin(self, tape: Tape, step: Step) -> Step:
        """Ask for no graph."""
        self.around(torch.autograd, "backward", self._call)
        self.around(torch.autograd, "grad", self._call)
        return step

    def _call(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        if self.number("backward") not in self.calls:
            return original(*args, **kwargs)
        given = inspect.signature(original).bind(*args, **kwargs)
        given.arguments.update(retain_graph=False, create_graph=False)
        return original(*given.args, **given.kwargs)
