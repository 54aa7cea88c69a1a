"""What autograd keeps in a step: every tensor saved for backward, who saved it, and whether backward asked for it.

One trace with saved-tensor hooks (``torch.autograd.graph``), which see each save as it is made and each use in backward. A
save is put down with the program's lines that led to it and with the module calls that it lies in; when the graph lets go of
it, it is dead. Beside the saves: every call of a module, of ``backward`` and ``grad``, of ``zero_grad`` and of an
optimizer's ``step``, and after each step the results that are still attached to a graph.

Cost: 10-30 us a save and a module call above the trace itself.
"""

from __future__ import annotations

import gc
import inspect
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from memfit.frameworks.torch.recorder import shown_file
from memfit.frameworks.torch.tape_mode import Tape
from memfit.ir.step import Step

_INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("purelib", "platlib", "stdlib", "platstdlib")})
_CLONE = torch.ops.aten.clone.default
Line = str  # file:line as shown to people


@dataclass(eq=False)
class Save:
    """One tensor saved for backward. ``backward``: the number of the backward call during which it was made, or -1."""

    number: int  # within its step
    step: int
    op: int
    storage: int | None
    lines: tuple[Line, ...]  # the program's own, outermost first
    call: Call | None
    backward: int
    used_by: set[int] = field(default_factory=set)  # numbers of backward calls
    alive: bool = True


@dataclass(eq=False)
class Call:
    """One call of a module."""

    number: int  # within its step
    step: int
    module: nn.Module
    parent: Call | None
    lines: tuple[Line, ...]
    grad: bool
    training: bool
    saves: list[Save] = field(default_factory=list)


@dataclass(frozen=True)
class Backward:
    """One call of ``backward`` or ``torch.autograd.grad``."""

    number: int  # within the trace
    position: int  # within its step
    step: int
    lines: tuple[Line, ...]
    retain_graph: bool
    create_graph: bool


@dataclass(frozen=True)
class ZeroGrad:
    """One call of ``zero_grad`` that keeps the gradients as zeros."""

    step: int
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Kept:
    """Results attached to a graph that are alive after a step: how many, the nodes of their graphs, the youngest's line."""

    count: int
    nodes: int
    line: Line
    shape: tuple[int, ...]
    nbytes: int


class WatchedTape(Tape):
    """A tape that also remembers copies of whole storages, and which storages are written after their birth."""

    def __init__(self, *, real: bool = False) -> None:
        super().__init__(real=real)
        self.written: dict[int, int] = {}  # storage -> the last op that wrote into it
        self.copies: list[tuple[int, int, int]] = []  # op, storage copied, storage of the copy

    def _forget(self, tensor: torch.Tensor) -> None:
        super()._forget(tensor)
        index = self.index_of(tensor)
        if index is not None:
            self.written[index] = len(self.ops) - 1

    def _compute(self, func: Any, args: Any, kwargs: Any, facts: Any, tensors: Any, all_known: bool) -> Any:
        result = super()._compute(func, args, kwargs, facts, tensors, all_known)
        if func is _CLONE:
            source = tensors[0]
            of, copy = self.index_of(source), self.index_of(result)
            whole = source.numel() * source.dtype.itemsize == source.untyped_storage().nbytes()
            if of is not None and copy is not None and whole and source.stride() == result.stride():
                self.copies.append((len(self.ops) - 1, of, copy))
        return result


class _Packed:
    """What a graph holds in place of a saved tensor; dies with the graph."""

    __slots__ = ("__weakref__", "save", "tensor")

    def __init__(self, tensor: torch.Tensor, save: Save) -> None:
        # Detached: an output that is held as it is would keep the graph that holds it.
        self.tensor, self.save = tensor.detach(), save

    def __del__(self) -> None:
        self.save.alive = False


class Watch:
    """The observer; what it saw stands in its lists after the trace."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self.tape(False)

    # -- the observer's side -------------------------------------------------------------------------------------

    def tape(self, real: bool) -> Tape:
        """A tape that remembers more, and nothing seen yet."""
        self.saves: list[Save] = []
        self.calls: list[Call] = []
        self.backwards: list[Backward] = []
        self.zero_grads: list[ZeroGrad] = []
        self.kept: list[Kept] = []  # after each step
        self.left: list[list[Save]] = []  # saves of each step that are alive after it
        self.stepped: set[int] = set()  # ids of parameters that an optimizer stepped
        self.with_gradient: set[int] = set()  # ids of parameters that got one
        self.step: Step | None = None
        self.watched = WatchedTape(real=real)
        self._stack: list[Call] = []
        self._counts = {"save": 0, "call": 0, "backward": 0}
        self._backward = -1
        return self.watched

    def begin(self, tape: Tape, step: Step) -> Step:
        """Put the hooks in place."""
        self.step = step
        hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        hooks.__enter__()
        self._undo.append(lambda: hooks.__exit__(None, None, None))
        self._replace(nn.Module, "__call__", self._module_call)
        self._replace(nn.Module, "zero_grad", self._zero_grad)
        self._replace(torch.optim.Optimizer, "zero_grad", self._zero_grad)
        self._replace(torch.autograd, "backward", self._backward_call)
        self._replace(torch.autograd, "grad", self._backward_call)
        handle = register_optimizer_step_pre_hook(self._optimizer_step)
        self._undo.append(handle.remove)
        for parameter in step.model.parameters() if isinstance(step.model, nn.Module) else ():
            if parameter.requires_grad:
                got = parameter.register_post_accumulate_grad_hook(lambda one: self.with_gradient.add(id(one)))
                self._undo.append(got.remove)
        if not gc.get_freeze_count():  # what lives before the steps is not theirs: three collections pass over it
            gc.freeze()
            self._undo.append(gc.unfreeze)
        return step

    def after(self, number: int) -> None:
        """Look at what a step leaves behind."""
        gc.collect()
        self.left.append([save for save in self.saves if save.step == number and save.alive])
        self.kept.append(self._kept())
        self._counts = dict.fromkeys(self._counts, 0)

    def end(self) -> None:
        """Take the hooks away."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    # -- what is looked at ---------------------------------------------------------------------------------------

    def _replace(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        original = owner.__dict__[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        setattr(owner, name, call)
        self._undo.append(lambda: setattr(owner, name, original))

    def _number(self, kind: str) -> int:
        self._counts[kind] += 1
        return self._counts[kind] - 1

    def _pack(self, tensor: torch.Tensor) -> _Packed:
        tape = self.watched
        call = self._stack[-1] if self._stack else None
        save = Save(
            self._number("save"), tape.location.step, len(tape.ops) - 1, tape.index_of(tensor), program_lines(), call,
            self._backward,
        )  # fmt: skip
        self.saves.append(save)
        while call is not None:
            call.saves.append(save)
            call = call.parent
        return _Packed(tensor, save)

    def _unpack(self, packed: _Packed) -> torch.Tensor:
        packed.save.used_by.add(self._backward)
        return packed.tensor

    def _module_call(self, original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        parent = self._stack[-1] if self._stack else None
        call = Call(
            self._number("call"), self.watched.location.step, module, parent, program_lines(),
            torch.is_grad_enabled(), module.training,
        )  # fmt: skip
        self.calls.append(call)
        self._stack.append(call)
        try:
            return original(module, *args, **kwargs)
        finally:
            self._stack.pop()

    def _backward_call(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        create, retain = bool(given.get("create_graph")), given.get("retain_graph")
        outer, self._backward = self._backward, len(self.backwards)
        self.backwards.append(
            Backward(
                self._backward, self._number("backward"), self.watched.location.step, program_lines(),
                create if retain is None else bool(retain), create,
            )
        )  # fmt: skip
        try:
            return original(*args, **kwargs)
        finally:
            self._backward = outer

    def _zero_grad(self, original: Any, owner: Any, set_to_none: bool = True) -> None:
        if not set_to_none:
            self.zero_grads.append(ZeroGrad(self.watched.location.step, program_lines()))
        original(owner, set_to_none)

    def _optimizer_step(self, optimizer: Any, *_: Any) -> None:
        self.stepped.update(id(one) for group in optimizer.param_groups for one in group["params"])

    def _kept(self) -> Kept:
        """Results with a graph that are alive now. Parameters and inputs have none."""
        youngest, count, found = -1, 0, None
        graphs: list[Any] = []
        for one in gc.get_objects():
            # By type: looking at attributes of everything that is alive runs code of lazy modules.
            if type(one) is torch.Tensor and one.grad_fn is not None:
                index = self.watched.index_of(one)
                if index is not None:
                    count += 1
                    graphs.append(one.grad_fn)
                    if index > youngest:
                        youngest, found = index, one
        if found is None:
            return Kept(count, 0, "", (), 0)
        nbytes, op, _, _ = self.watched.born[youngest]
        return Kept(count, _nodes(graphs), self.watched.ops[op][4] if op >= 0 else "", tuple(found.shape), nbytes)


def _nodes(graphs: list[Any]) -> int:
    """How many nodes these graphs have, each once; no further than a million."""
    seen: set[Any] = set()
    while graphs and len(seen) < 1_000_000:
        node = graphs.pop()
        if node is not None and node not in seen:
            seen.add(node)
            graphs += [after for after, _ in node.next_functions]
    return len(seen)


def program_lines() -> tuple[Line, ...]:
    """The lines of the program that led here, outermost first: neither torch's, memfit's nor an installed package's.

    Cost: about 0.2 us a frame.
    """
    found: list[Line] = []
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = _own(frame.f_code)
        if file is _STOP:
            break
        if file is not None:
            found.append(f"{file}:{frame.f_lineno}")
        frame = frame.f_back
    return tuple(reversed(found))


_STOP = "<above the step>"


@lru_cache(maxsize=8192)
def _own(code: Any) -> str | None:
    file = shown_file(code)
    if file == "<memfit>":
        return _STOP
    installed = code.co_filename.startswith(_INSTALLED) or "site-packages" in Path(code.co_filename).parts
    return None if file is None or file[0] == "<" or installed else file
