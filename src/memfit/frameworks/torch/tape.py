"""Trace a whole program without running it: build it, run its steps on hollow tensors, and name every storage.

Categories, in this order of precedence: parameters and buffers of the model; inputs; gradients (``.grad`` of a
parameter at any time); optimizer state (tensors in ``optimizer.state``); activations (born in a forward phase and alive
beyond the op that made them); everything else is temporary: scratch inside ops, what backward and optimizer pass on.
Where hollow tensors do not carry a program through, it is run for real under the same mode, and the trace says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch

from memfit.errors import MemfitError, TargetError
from memfit.frameworks.torch.hollow_step import hollow_step
from memfit.frameworks.torch.steps import is_training, run_step
from memfit.frameworks.torch.tape_mode import Tape
from memfit.ir.step import Step
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage

LARGEST_REAL_RUN = 2 << 30


class Observer(Protocol):
    """What may look at a program, or change it, while it is traced."""

    def tape(self, real: bool) -> Tape:
        """The tape to trace with; asked again, to begin anew, where hollow tensors do not carry the program through."""

    def begin(self, tape: Tape, step: Step) -> Step:
        """The program is built and its first step about to run; returns the Step to run."""

    def after(self, number: int) -> None:
        """A step has ended, and nothing that it returned is held any more."""

    def end(self) -> None:
        """The trace ends, after an error too: undo what was changed."""


def trace_step(
    build: Callable[[], Step] | Step, *, steps: int = 2, real: bool | None = None, accelerator: bool = False,
    observer: Observer | None = None,
) -> Trace:  # fmt: skip
    """The projected Trace of a program: its construction and ``steps`` steps.

    Args:
        build: makes the Step; it is called on hollow tensors, so a model of any size costs no memory. Or a Step that
            exists: a hollow copy of it is traced, its own tensors are neither read nor changed.
        steps: how many steps to run, >= 1; optimizer state appears in the first, so 2 shows the steady state.
        real: True: run every op for real. None: only where hollow tensors fail and the program held less than
            ``LARGEST_REAL_RUN`` bytes by then. False: never.
        accelerator: choose where a program leaves it open as PyTorch does on a GPU (foreach optimizers).
        observer: looks on, and may change the Step.

    Raises:
        MemfitError: the program raises; whatever ``run_step`` raises for a step that cannot train.

    Cost: 20-40 us an op; random state and the autograd mode are left as found.
    """
    note = "traced by running it"
    if real is not True:
        tape = Tape() if observer is None else observer.tape(False)
        try:
            return _trace(build, steps, tape, accelerator, observer=observer)
        except Exception as error:
            held = sum(delta for _, delta, _ in tape.events)
            if real is False or held > LARGEST_REAL_RUN:
                raise _explained(error) from error
            note = f"traced by running it, as it cannot run on hollow tensors ({type(error).__name__}: {error})"
    try:
        tape = Tape(real=True) if observer is None else observer.tape(True)
        return _trace(build, steps, tape, accelerator, note, observer)
    except Exception as error:
        raise _explained(error) from error


def _explained(error: Exception) -> MemfitError:
    if isinstance(error, MemfitError):
        return error
    return TargetError("step", f"it raises {type(error).__name__}: {error}", "run it alone to see its traceback")


def _trace(
    build: Callable[[], Step] | Step, steps: int, tape: Tape, accelerator: bool, note: str = "",
    observer: Observer | None = None,
) -> Trace:  # fmt: skip
    place = tape.location
    labels = _Labels(tape)
    try:
        with (
            _undisturbed(),
            place.watching_modules(),
            _random_states_counted(tape, accelerator),
            tape,
            _observed(observer),
        ):
            tape.begin("build")
            if isinstance(build, Step):
                _refuse_meta(build)
            step = hollow_step(build, tape) if isinstance(build, Step) else build()
            _refuse_meta(step)
            if observer is not None:
                step = observer.begin(tape, step)
            place.name_modules(step.model)
            labels.learn_model(step)
            if accelerator:
                _prefer_foreach(step.optimizer)

            def mark(phase: str) -> None:
                labels.learn_optimizer(step)
                place.phase = phase

            for number in range(steps):
                place.step = number
                run_step(step, mark)
                labels.learn_optimizer(step)
                place.forget_forward()
                if observer is not None:
                    observer.after(number)
    finally:
        tape.stop()
        labels.close()
    return _assemble(tape, labels, is_training(step), note)


def _refuse_meta(step: Step) -> None:
    """Raise for a model on the meta device: its tensors have no bytes to count."""
    model = step.model
    if isinstance(model, torch.nn.Module):
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.device.type == "meta":
                raise TargetError(
                    "step", f"its model is on the meta device ({name}), where tensors have no bytes to count",
                    "build it on the CPU: predict allocates nothing, however large the model",
                )  # fmt: skip


def _prefer_foreach(optimizer: Any) -> None:
    for group in getattr(optimizer, "param_groups", []):
        if group.get("foreach", False) is None and not group.get("fused"):
            group["foreach"] = True


@contextlib.contextmanager
def _observed(observer: Observer | None) -> Iterator[None]:
    """What the observer put in place goes before what the trace put there."""
    try:
        yield
    finally:
        if observer is not None:
            observer.end()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Random state, gradient mode and compilation as found on the way out; ``torch.compile`` runs eagerly inside."""
    random_state, grad = torch.get_rng_state(), torch.is_grad_enabled()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.set_rng_state(random_state)
        torch.set_grad_enabled(grad)


@contextlib.contextmanager
def _random_states_counted(tape: Tape, elsewhere: bool) -> Iterator[None]:
    """Enter the random states that a program asks for (checkpointing keeps one for each block): no op makes them.

    ``elsewhere``: the trace stands for another device's memory, where they do not lie.
    """
    original = torch.random.get_rng_state

    def get_rng_state() -> torch.Tensor:
        state = original()
        tape.enter(state, known=True)
        return state

    places = [] if elsewhere else [place for place in (torch, torch.random) if place.get_rng_state is original]
    for place in places:
        place.get_rng_state = get_rng_state
    try:
        yield
    finally:
        for place in places:
            place.get_rng_state = original


class _Labels:
    """Which storage is a parameter, a buffer, an input, a gradient or optimizer state, and its name."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self.categories: dict[int, tuple[Category, str]] = {}
        self._names: dict[int, str] = {}
        self._hooks: list[Any] = []
        self._optimizer_entries = -1

    def set(self, tensor: Any, category: Category, label: str) -> None:
        """Put a tensor's storage into a category, if it has none yet."""
        if isinstance(tensor, torch.Tensor):
            index = self._tape.index_of(tensor)
            if index is not None:
                self.categories.setdefault(index, (category, label))

    def learn_model(self, step: Step) -> None:
        """Parameters, buffers and inputs; gradients are learned as they appear."""
        model = step.model
        parameters: dict[str, Any] = {}
        if isinstance(model, torch.nn.Module):
            parameters = dict(model.named_parameters())
            for name, parameter in parameters.items():
                self.set(parameter, Category.PARAMETERS, name)
            for name, buffer in model.named_buffers():
                self._tape.enter(buffer, known=True)
                self.set(buffer, Category.BUFFERS, name)
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        extra = [
            p
            for group in getattr(step.optimizer, "param_groups", [])
            for p in group["params"]
            if id(p) not in self._names
        ]
        for parameter in extra:
            self.set(parameter, Category.PARAMETERS, "")
        for parameter in (*parameters.values(), *extra):
            if parameter.requires_grad and parameter.is_leaf:
                self._hooks.append(parameter.register_post_accumulate_grad_hook(self._gradient))
        for label, tensor in _named_tensors(step.inputs):
            self._tape.enter(tensor, known=True)
            self.set(tensor, Category.INPUTS, label)

    def _gradient(self, parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        if gradient is not None:
            parts = [gradient] if gradient.layout is torch.strided else [gradient._indices(), gradient._values()]
            for part in parts:
                self.set(part, Category.GRADIENTS, self._names.get(id(parameter), ""))

    def learn_optimizer(self, step: Step) -> None:
        """State that the optimizer holds by now."""
        state = getattr(step.optimizer, "state", None)
        if not state:
            return
        for parameter, entries in state.items():
            if isinstance(entries, dict):
                name = self._names.get(id(parameter), "")
                for key, value in entries.items():
                    for label, tensor in _named_tensors(value):
                        self.set(tensor, Category.OPTIMIZER_STATE, f"{name}.{key}{label}")

    def close(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()


def _named_tensors(value: Any, label: str = "") -> list[tuple[str, torch.Tensor]]:
    """Tensors in nested lists, tuples and dicts, with a name."""
    if isinstance(value, torch.Tensor):
        return [(label, value)]
    found: list[tuple[str, torch.Tensor]] = []
    if isinstance(value, dict):
        for key, item in value.items():
            found += _named_tensors(item, f"{label}.{key}" if label else str(key))
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            found += _named_tensors(item, f"{label}[{position}]")
    return found


def _assemble(tape: Tape, labels: _Labels, training: bool, note: str) -> Trace:
    ops = tuple([TraceOp(*row) for row in tape.ops])
    death_op = {index: op for index, delta, op in tape.events if delta < 0}
    storages: list[TraceStorage] = []
    for index, (nbytes, op, shape, dtype) in enumerate(tape.born):
        category, label = labels.categories.get(index, (None, ""))
        if category is None:
            beyond = index not in tape.scratch and death_op.get(index, len(ops)) > op
            category = Category.ACTIVATIONS if beyond and ops[op].phase == "forward" else Category.TEMPORARIES
        storages.append(TraceStorage(nbytes, category, op, shape, dtype, label))
    columns = np.array(tape.events, dtype=np.int64).reshape(-1, 3)
    notes = [*([note] if note else []), *tape.notes]
    meta = {"device": "cpu", "torch": torch.__version__, "training": training, "notes": notes}
    return Trace(
        "projected", ops, tuple(storages), columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy(), meta=meta
    )
