"""Capture a whole training or inference step as one flat, functional ATen graph.

Forward, loss and backward run once on fake tensors under ``make_fx``, so the recorded ops are those that eager PyTorch
runs, autograd's order of sums included; a second pass removes mutations (``torch.func.functionalize``), so that any op
can be run again. What stays in place is known by name: buffer write-backs at the end and batch norm's running
statistics. Nothing of the model's size is allocated. Cost: seconds, O(ops).

Where the program looks at values of tensors, the trace follows what they really are, and ``tests`` say what a run must
check (``outcomes``); random arrays drawn outside of torch become inputs (``host_draws``). Where a program cannot be
captured (control flow by random numbers, a custom ``Step.run``), ``CaptureError`` says why and at which line of the
user's code; ``fit`` then works on modules instead.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils import _pytree as pytree

from memfit.errors import CaptureError, MemfitError
from memfit.frameworks.torch import random_ops, strided_writes
from memfit.frameworks.torch.draws_again import DrawsAgain
from memfit.frameworks.torch.host_draws import DrawWatch, HostDraws, OutsideState, checked, reseeded
from memfit.frameworks.torch.inner_backward import own_functions, refuse_inner_backward
from memfit.frameworks.torch.outcomes import ItemsWatched, Test, ValuesWatched, Watch, traced_as
from memfit.frameworks.torch.output_form import OutputForm, taken_apart
from memfit.frameworks.torch.part_run import PartRun
from memfit.frameworks.torch.replay_state import Journal, StateWatch
from memfit.frameworks.torch.steps import autocast_of, is_training, loss_of
from memfit.frameworks.torch.strided_writes import keep_strides
from memfit.ir.step import Step

DECOMPOSITIONS = {**random_ops.DECOMPOSITIONS, **strided_writes.DECOMPOSITIONS}


@dataclass(frozen=True)
class Capture:
    """A captured step.

    ``module``'s placeholders are the trained parameters, frozen parameters, buffers and input tensors, in that order;
    its outputs are the detached loss (training) or the output leaves (inference), then one gradient (or None) per trained
    parameter, then what ``tests`` read. ``names`` label the placeholders; ``training`` tells the two forms apart.
    ``draws`` give further input tensors, after those of the inputs.
    """

    module: torch.fx.GraphModule
    training: bool
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    buffers: tuple[str, ...]
    input_spec: Any
    input_leaves: tuple[Any, ...]
    output_form: OutputForm | None
    readings: int = 0
    tests: tuple[Test, ...] = ()
    draws: HostDraws = field(default_factory=HostDraws)

    def output(self, leaves: Sequence[Any]) -> Any:
        """The model's output with these leaves (inference)."""
        assert self.output_form is not None
        return self.output_form.together(leaves)

    @property
    def names(self) -> tuple[str, ...]:
        """Labels of the placeholders, in order."""
        count = sum(isinstance(leaf, torch.Tensor) for leaf in self.input_leaves)
        drawn = tuple(f"drawn {i}" for i in range(len(self.draws.tensors)))
        return self.trained + self.frozen + self.buffers + tuple(f"input {i}" for i in range(count)) + drawn


def input_tensors(inputs: Any) -> list[torch.Tensor]:
    """The tensors among a step's inputs, in flattening order."""
    return [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]


def capture(step: Step) -> Capture:
    """The step as one flat ATen graph.

    Raises:
        CaptureError: the program cannot be captured; the message names the line.
    """
    if step.run is not None:
        raise CaptureError("the step runs its own loop (Step.run)", hint="fit works on its modules instead")
    if not isinstance(step.model, torch.nn.Module):
        raise CaptureError(f"the model is a {type(step.model).__name__}, not a torch.nn.Module")
    _refuse_hooks(step.model)
    first: CaptureError | None = None
    # Second, numbers that the program reads as what they are, without following what becomes of them; third, as a
    # compiler would see it: some models then take a branch without looking at values.
    for trace in (_Trace(step), _Trace(step, plain=True), _Trace(step, compiling=True)):
        try:
            return trace.capture()
        except CaptureError as error:
            first = first or error
            if not trace.worth_another:
                break
    assert first is not None
    raise first


def _refuse_hooks(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_sparse or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise CaptureError(f"parameter {name} is sparse or has a gradient hook")
        if parameter.device.type == "meta":
            raise CaptureError(f"parameter {name} has no memory (device meta)", hint="build the model on a real device")


@dataclass
class _Trace:
    """One way to trace a step; see ``capture``."""

    step: Step
    plain: bool = False
    compiling: bool = False
    worth_another: bool = True

    def capture(self) -> Capture:
        """The capture, with draws from outside of torch found and free numbers of rows told from those that matter.

        Cost: one trace; three more where there are draws, one more where a shape depends on values.
        """
        outside = OutsideState()
        attributes = StateWatch(self.step.model, ())
        before = attributes.before()
        with ExitStack() as stack:
            stack.callback(outside.restore)
            stack.callback(lambda: _without_plain(attributes.after(before)).undo())
            found, watch = self.once(rows=lambda most: most)
            self.worth_another = False
            if _plain_changes(attributes.after(before)):
                settled = attributes.before()
                text = self.once(rows=lambda most: most, light=True)[1].text
                _refuse_counting(attributes.after(before), attributes.after(settled), text == watch.text)
                outside.restore()
                found, watch = self.once(rows=lambda most: most)
            draws = HostDraws()
            if outside.moved():
                draws = self.found_draws(outside)
                found, watch = self.drawn(draws, outside, rows=lambda most: most)
            if (draws.draws or watch.free_rows) and self.text_of_another(draws, True, outside) != watch.text:
                if draws.draws and self.text_of_another(draws, False, outside) != watch.text:
                    raise CaptureError("its control flow or shapes depend on random numbers drawn outside of torch")
                found, watch = self.drawn(draws, outside, rows=None)
            return found

    def text_of_another(self, draws: HostDraws, fewer: bool, outside: OutsideState) -> list[Any]:
        """What the trace does with other draws, and where ``fewer`` with other numbers of rows."""
        outside.restore()
        with reseeded(7) if draws.draws else contextlib.nullcontext():
            rows = (lambda most: max(0, most - 1)) if fewer else (lambda most: most)
            return self.drawn(draws, OutsideState(), rows=rows, light=True)[1].text

    def found_draws(self, outside: OutsideState) -> HostDraws:
        """What the step draws outside of torch."""
        outside.restore()
        draws = DrawWatch()
        with draws.active():
            self.once(rows=lambda most: most, light=True)
        return checked(draws, outside)

    def drawn(
        self, draws: HostDraws, outside: OutsideState, rows: Callable[[int], int] | None, light: bool = False
    ) -> tuple[Capture, Watch]:
        """A trace with the draws as inputs, from a state outside of torch."""
        outside.restore()
        given = draws() if draws.draws else []
        outside.restore()
        return self.once(rows=rows, draws=draws, given=given, light=light)

    def once(
        self, rows: Callable[[int], int] | None, draws: HostDraws | None = None, given: Sequence[torch.Tensor] = (),
        light: bool = False,
    ) -> tuple[Capture, Watch]:  # fmt: skip
        """One trace; ``light``: only for what it does, with mutations in it."""
        return _traced(self.step, self.compiling, self.plain, rows, draws or HostDraws(), given, light)


def _is_plain_change(space: dict[str, Any], key: str, old: Any) -> bool:
    now = space.get(key)
    return isinstance(old, (bool, int, float, str)) and isinstance(now, (bool, int, float, str)) and now != old


def _plain_changes(journal: Journal) -> list[tuple[str, Any, Any]]:
    return [(key, old, space[key]) for space, key, old in journal.values if _is_plain_change(space, key, old)]


def _without_plain(journal: Journal) -> Journal:
    # A number that a first forward sets once and for all stays set, as it would in eager mode.
    return Journal([row for row in journal.values if not _is_plain_change(*row)])


def _refuse_counting(whole: Journal, later: Journal, same: bool) -> None:
    for key, old, now in _plain_changes(later):
        whole.undo()
        raise CaptureError(f"a module changes its attribute {key!r} from {old!r} to {now!r} in each step")
    if not same:
        whole.undo()
        raise CaptureError("its first step is another than its later ones: a module's attribute changes in it")


def _text(module: torch.fx.GraphModule, tests: list[Test]) -> list[Any]:
    """What a trace does, without the sizes of what depends on values."""
    rows: list[Any] = []
    for node in module.graph.nodes:
        args = node.args[:1] if str(node.target) == "memfit.positions.default" else node.args
        rows.append((node.op, str(node.target), str(args), str(node.kwargs)))
    return [*rows, [test.outcome for test in tests]]


def _traced(
    step: Step, compiling: bool, plain: bool, rows: Callable[[int], int] | None, draws: HostDraws,
    given: Sequence[torch.Tensor], light: bool,
) -> tuple[Capture, Watch]:  # fmt: skip
    model = step.model
    training = is_training(step)
    parameters = dict(model.named_parameters())
    trained = tuple(name for name, value in parameters.items() if value.requires_grad and training)
    frozen = tuple(name for name in parameters if name not in set(trained))
    buffers = tuple(name for name, _ in model.named_buffers())
    leaves, input_spec = pytree.tree_flatten(step.inputs)
    output_form: list[OutputForm | None] = [None]
    values = [
        *(parameters[name].detach() for name in trained + frozen),
        *(value for _, value in model.named_buffers()),
        *(leaf for leaf in leaves if isinstance(leaf, torch.Tensor)),
        *given,
    ]
    part = PartRun(values, torch.get_rng_state())
    watch = Watch(lambda tensor: part.value(*traced_as(tensor)), plain, rows)

    def flat(*tensors: torch.Tensor) -> list[Any]:
        with ItemsWatched(watch), ValuesWatched(watch):
            made = run(*tensors)
        return [*made, *watch.readings]

    def run(*tensors: torch.Tensor) -> list[Any]:
        rest = iter(tensors)
        leaf_parameters = [next(rest).detach().requires_grad_() for _ in trained]
        state = dict(zip(trained, leaf_parameters, strict=True))
        for (
            name
        ) in frozen:  # a product is folded or not by whether an operand requires gradients, also where none is taken
            given = next(rest)
            state[name] = given.detach().requires_grad_() if parameters[name].requires_grad else given
        state.update({name: next(rest) for name in buffers})
        inputs = pytree.tree_unflatten([next(rest) if isinstance(x, torch.Tensor) else x for x in leaves], input_spec)
        args, kwargs = _arguments(inputs)
        converted = DrawWatch(given=list(rest)).active() if draws.draws else contextlib.nullcontext()
        # The backward pass too: a checkpointed block runs again in it.
        with converted, _reparametrize_module(model, state, tie_weights=True):
            return forward_and_backward(leaf_parameters, args, kwargs)

    def forward_and_backward(leaf_parameters: list[torch.Tensor], args: Any, kwargs: Any) -> list[Any]:
        if not training:
            with torch.no_grad(), autocast_of(step):
                output = model(*args, **kwargs)
            output_leaves, output_form[0] = taken_apart(output)
            return list(output_leaves)
        total: Any = None
        gradients: list[Any] = [None] * len(trained)
        for _ in range(step.accumulate):
            with autocast_of(step):
                loss = loss_of(step, model(*args, **kwargs))
            if step.accumulate > 1:
                loss = loss / step.accumulate
            functions = own_functions(loss)
            fresh = torch.autograd.grad(loss, leaf_parameters, allow_unused=True)
            refuse_inner_backward(functions, [name for name, new in zip(trained, fresh, strict=True) if new is None])
            gradients = [_accumulated(old, new) for old, new in zip(gradients, fresh, strict=True)]
            total = loss.detach() if total is None else total + loss.detach()
        gradients = [_laid_out(g, parameters[name]) for name, g in zip(trained, gradients, strict=True)]
        return [total, *gradients]

    again = DrawsAgain()
    with _quiet(), _compiling(compiling), _rng_kept():
        try:
            with again.watched():
                module = keep_strides(make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*values))
            again.read(module)
            watch.text = _text(module, watch.tests)
            if not light:
                whole = functionalize(module, remove="mutations")
                module = make_fx(whole, DECOMPOSITIONS, "fake", _allow_non_fake_inputs=True)(*values)
                again.apply(module)
                _refuse_unknown_shapes(module)
        except CaptureError as error:
            raise CaptureError(error.why, error.where or _user_line(error), error.hint) from error
        except MemfitError:
            raise
        except Exception as error:
            raise CaptureError(_reason(error), _user_line(error)) from error
    return Capture(
        module, training, trained, frozen, buffers, input_spec, tuple(leaves), output_form[0], len(watch.readings),
        tuple(watch.tests), draws,
    ), watch  # fmt: skip


def _refuse_unknown_shapes(module: torch.fx.GraphModule) -> None:
    for node in module.graph.nodes:
        for value in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(value, torch.SymInt) or (
                isinstance(value, torch.Tensor) and any(isinstance(size, torch.SymInt) for size in value.shape)
            ):
                raise CaptureError(f"the shape of what {node.target} gives depends on tensor values")


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})


def _accumulated(old: Any, new: Any) -> Any:
    if old is None or new is None:
        return new if old is None else old
    return old + new


def _laid_out(gradient: Any, parameter: torch.Tensor) -> Any:
    # AccumulateGrad gives a gradient its parameter's layout, and never lets it share memory.
    if gradient is None or gradient.layout is not torch.strided:
        if gradient is not None:
            raise CaptureError("a gradient is sparse", hint="fit works on modules instead")
        return None
    if gradient.stride() == parameter.stride():
        return gradient
    shape, strides = (
        tuple(parameter.shape),
        parameter.stride(),
    )  # not empty_like: the parameter itself is no tensor of the trace
    return torch.empty_strided(shape, strides, dtype=gradient.dtype, device=gradient.device).copy_(gradient)


@contextlib.contextmanager
def _compiling(on: bool) -> Iterator[None]:
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = on or before
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _rng_kept() -> Iterator[None]:
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _reason(error: Exception) -> str:
    name = type(error).__name__
    text = str(error).strip().splitlines()
    if name in ("DataDependentOutputException", "GuardOnDataDependentSymNode", "DynamicOutputShapeException"):
        return f"its control flow or shapes depend on tensor values ({text[0] if text else name})"
    return f"{name}: {text[0] if text else 'no message'}"


def _user_line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/torch/" not in frame.filename and "/memfit/" not in frame.filename]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""
