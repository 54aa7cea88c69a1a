"""`arena`: a model's inference with every intermediate in one piece of memory, at offsets planned beforehand.

    capture --> rehearsal --> placement --> code at fixed addresses --> verified against both and the model, bit for bit

    >>> fast = memfit.arena(model, inputs)          # doctest: +SKIP
    >>> output = fast(inputs)                       # doctest: +SKIP

A step allocates no tensor memory: results are written to their places, and what kernels need inside is answered from
the plan. Outputs lie in the arena too: they are valid until the next call (``copy=True`` gives tensors of their own).
One plan a shape of inputs, made at the first call with it and kept; the shapes share one memory, as large as the largest
needs. Parameters and buffers are used where they are; where one is replaced by another tensor, the plan is made again.
Where the program looks at values, there is a plan for each way through it, as in ``fitted``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from memfit.errors import CaptureError, VerifyError
from memfit.frameworks.torch import arena_allocator
from memfit.frameworks.torch.arena_memory import ArenaMemory
from memfit.frameworks.torch.arena_plan import Plan, plan_of
from memfit.frameworks.torch.arena_rehearsal import SERVED, Rehearse, same_bits
from memfit.frameworks.torch.arena_writer import Body, body_of, put_in_place, results_of
from memfit.frameworks.torch.capture import Capture, capture, input_tensors
from memfit.frameworks.torch.host_draws import OutsideState
from memfit.frameworks.torch.outcomes import Checker, OtherWayError, goes_with
from memfit.frameworks.torch.output_form import taken_apart
from memfit.frameworks.torch.program import program_of
from memfit.frameworks.torch.steps import run_step
from memfit.ir.step import Step
from memfit.passes.order import order_for_peak

MOST_WAYS = 8
TIME_LIMIT = 2.0


@dataclass(frozen=True)
class ArenaReport:
    """An arena's figures of one shape of inputs, all projected from its plan.

    ``arena``: bytes of the placement; ``lower_bound``: what no placement can go below; ``sum``: of all intermediates, had
    each its own memory. ``forms``: how many operations run in which form (see ``arena_rehearsal``).
    """

    arena: int
    lower_bound: int
    sum: int
    buffers: int
    strategy: str
    forms: dict[str, int]
    served: bool


@dataclass
class _Way:
    """One way through the program for one shape of inputs."""

    captured: Capture
    plan: Plan
    body: Body
    source: str
    calls: arena_allocator.PlannedCalls | None
    constants: list[torch.Tensor]
    holders: list[tuple[dict[str, torch.Tensor], str]]
    places: list[int]
    report: ArenaReport


class Arena:
    """A model's inference in one arena; call it as the model. See the module text.

    Args:
        step: the model and example inputs; a loss and an optimizer are of no use here.
        order: first put the operations in the order with the least peak (``passes.order``).
        exact: refuse a model whose own kernels give other bits than its graph.
        time_limit: CPU seconds that planning one shape may take.

    Raises:
        CaptureError: the model cannot be captured as one graph.
        VerifyError: the arena's step gave other bits than the program.
    """

    def __init__(self, step: Step, *, order: bool = False, exact: bool = True, time_limit: float = TIME_LIMIT) -> None:
        self.step = replace(step, train=False, loss=None, optimizer=None)
        self.order, self.exact, self.time_limit = order, exact, time_limit
        self.memory = ArenaMemory()
        self.missed = 0
        self.calls = 0
        self._ways: dict[Any, list[_Way]] = {}
        self._lock = threading.Lock()
        with self._lock:
            self._way(self.step.inputs)

    def __call__(self, *args: Any, copy: bool = False, **kwargs: Any) -> Any:
        """The model's output for inputs given as to the model, or as in a Step; without any, for the example's.

        ``copy``: outputs are tensors of their own. Otherwise they are valid until the next call.
        """
        if args and kwargs:
            raise TypeError("give an arena its inputs by position or by keyword, not both")
        inputs = kwargs or (args[0] if len(args) == 1 else args) if args or kwargs else self.step.inputs
        with self._lock:
            output = self._run(inputs)
            if copy:
                output = pytree.tree_map_only(torch.Tensor, torch.clone, output)
        return output

    @property
    def report(self) -> ArenaReport:
        """The figures of the example's shape."""
        with self._lock:
            return self._way(self.step.inputs).report

    @property
    def source(self) -> str:
        """The code that runs for the example's shape."""
        with self._lock:
            return self._way(self.step.inputs).source

    def _way(self, inputs: Any) -> _Way:
        key = _key(inputs)
        if key not in self._ways:
            self._ways[key] = [self._planned(inputs)]
        return self._ways[key][0]

    def _run(self, inputs: Any) -> Any:
        self.calls += 1
        way = self._way(inputs)
        if [holder[name].data_ptr() for holder, name in way.holders] != way.places:
            self._ways.clear()  # parameters were moved or replaced
            way = self._way(inputs)
        for _ in range(MOST_WAYS + 1):
            try:
                return self._finished(way, inputs)
            except OtherWayError as other:
                following = self._other_way(inputs, other.outcomes)
                if following is None:
                    break
                way = following
        return run_step(replace(self.step, inputs=inputs))

    def _other_way(self, inputs: Any, outcomes: tuple[Any, ...]) -> _Way | None:
        """The plan of the way with these first outcomes; None where the step is to run as it is."""
        ways = self._ways[_key(inputs)]
        for known in ways:
            if goes_with(known.captured.tests, outcomes):
                return known
        if len(ways) < MOST_WAYS:
            made = self._planned(inputs)
            self._ways.setdefault(_key(inputs), []).append(
                made
            )  # a larger memory dropped the ways over the smaller one
            if goes_with(made.captured.tests, outcomes):
                return made
        return None

    def _finished(self, way: _Way, inputs: Any) -> Any:
        tensors = [*way.constants, *input_tensors(inputs), *way.captured.draws()]
        outputs = self._execute(way, tensors, Checker(way.captured.tests))
        return way.captured.output(outputs)

    def _execute(self, way: _Way, tensors: Sequence[torch.Tensor], look: Callable[[torch.Tensor], None]) -> list[Any]:
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            if way.calls is None:
                return way.body(tensors, look)
            way.calls.enter()
            try:
                return way.body(tensors, look)
            finally:
                self.missed += way.calls.leave()

    def _planned(self, inputs: Any) -> _Way:
        step = replace(self.step, inputs=inputs)
        captured = capture(step)
        if captured.training:
            raise CaptureError("an arena runs inference, and this step trains")
        for allow_out in (True, False):
            way, wanted = self._built(captured, inputs, allow_out)
            with self._put_back(way, inputs) as tensors:
                got = self._execute(way, tensors, lambda value: None)
            if all(_same(a, b) for a, b in zip(got, wanted, strict=True)):
                break
        else:
            raise VerifyError("the arena's step", "the captured program's bits", "other bits")
        if self.exact:
            with self._put_back(way, inputs):
                model = taken_apart(run_step(step))[0]
            if len(model) != len(got) or not all(_same(a, b) for a, b in zip(got, model, strict=True)):
                raise VerifyError(
                    "the arena's step", "the model's own bits",
                    "others: the model runs kernels that its graph does not hold (a fused fast path); exact=False takes them",
                )  # fmt: skip
        return way

    @contextmanager
    def _put_back(self, way: _Way, inputs: Any) -> Iterator[list[torch.Tensor]]:
        """Gives the step's tensors; what a step changes of them, and the random states, are put back afterwards."""
        state, outside = torch.get_rng_state(), OutsideState()
        tensors = [*way.constants, *input_tensors(inputs), *way.captured.draws()]
        outside.restore()
        graph = way.plan.program.graph
        labels = {graph.storages[s].label for op in graph.ops for s in op.changes}
        kept = [(t, t.clone()) for name, t in zip(way.captured.names, tensors, strict=True) if name in labels]
        try:
            yield tensors
        finally:
            torch.set_rng_state(state)
            outside.restore()
            with torch.no_grad():
                for tensor, copy in kept:
                    tensor.copy_(copy)

    def _built(self, captured: Capture, inputs: Any, allow_out: bool) -> tuple[_Way, list[Any]]:
        program = program_of(captured.module, captured.names, readings=captured.readings)
        if program.graph.ops and any(t.device.type != "cpu" for t in input_tensors(inputs)):
            raise CaptureError("an arena holds tensors of the CPU, and these inputs lie elsewhere")
        schedule = list(range(len(program.graph.ops)))
        if self.order:
            schedule = list(order_for_peak(program.graph, time_limit=self.time_limit).schedule)
        parameters, buffers = dict(self.step.model.named_parameters()), dict(self.step.model.named_buffers())
        constants = [
            *(parameters[name].detach() for name in (*captured.trained, *captured.frozen)),
            *(buffers[name].detach() for name in captured.buffers),
        ]
        state, outside = torch.get_rng_state(), OutsideState()
        tensors = [*constants, *input_tensors(inputs), *captured.draws()]
        serve = arena_allocator.is_available()
        found = Rehearse(program, schedule, tensors, lambda value: None, allow_out=allow_out, serve=serve).run()
        torch.set_rng_state(state)
        outside.restore()
        plan = plan_of(program, schedule, found, self.time_limit)
        if self.memory.grow(plan.nbytes):
            self._ways.clear()  # their tensors lie over the memory that was
        storages = {s: self.memory.storage(at, found.nbytes[s]) for s, at in plan.offset.items()}
        fixed = {
            node: torch.empty(0, dtype=laid.dtype).set_(storages[laid.storage], laid.offset, laid.shape, laid.stride)
            if laid.storage in storages
            else torch.empty_strided(laid.shape, laid.stride, dtype=laid.dtype)
            for node, laid in found.laid.items()
        }  # fmt: skip
        live = set[torch.fx.Node]()
        placeholders = [n for n in program.module.graph.nodes if n.op == "placeholder"]
        for place, node in enumerate(placeholders):
            if place < len(constants):
                fixed[node] = constants[place]
            else:
                live.add(node)
        for node in program.module.graph.nodes:
            if node.op == "get_attr":
                value: Any = program.module
                for part in str(node.target).split("."):
                    value = getattr(value, part)
                fixed[node] = value
        base = self.memory.base
        calls = None
        if serve:
            calls = arena_allocator.PlannedCalls(
                [
                    [(nbytes, base + at if at >= 0 else 0) for nbytes, at in plan.answers.get(index, ())]
                    for index in range(len(program.graph.ops))
                ]
            )
        places = {index: [(fixed[n], p) for n, p in results_of(program, index, fixed)] for index in schedule}
        body, source = body_of(
            plan.program, schedule, found, fixed, live, calls, lambda index, made: put_in_place(made, places[index])
        )
        own = [s for s in plan.program.graph.storages if not s.constant]
        report = ArenaReport(
            plan.nbytes, plan.lower_bound, sum(s.nbytes for s in own), len(plan.offset),
            plan.placement.strategy if plan.placement is not None else "",
            dict(Counter(known.form if serve or known.form != SERVED else "copied" for known in found.ops.values())), serve,
        )  # fmt: skip
        places_now = [tensor.data_ptr() for tensor in constants]
        way = _Way(
            captured, plan, body, source, calls, constants, _holders(self.step.model, captured), places_now, report
        )
        return way, found.outputs


def arena(
    model: Any, inputs: Any = None, *, order: bool = False, exact: bool = True, time_limit: float = TIME_LIMIT
) -> Arena:  # fmt: skip
    """The model's inference in one arena: no tensor memory is allocated in a step, the results have the same bits.

    Args:
        model: a module, with ``inputs`` as in a Step (a tensor, a tuple, or a dict of keyword arguments); or a Step.
        inputs: an example; other shapes are planned as they come.
        order: first put the operations in the order with the least peak.
        exact: refuse a model whose own kernels give other bits than the graph that is captured of it (a fused fast path,
            as ``torch.nn.TransformerEncoder`` has); False takes the graph's.
        time_limit: CPU seconds that planning one shape may take.

    Returns:
        What to call in place of the model; its ``report`` says how large the arena is, and the least it could be.

    Raises:
        CaptureError: the model cannot be captured as one graph.
        VerifyError: the arena's step gave other bits than the program.
    Cost: capturing takes seconds; then four runs of the model, and planning.
    """
    step = model if isinstance(model, Step) else Step(model, inputs)
    return Arena(step, order=order, exact=exact, time_limit=time_limit)


def _holders(model: torch.nn.Module, captured: Capture) -> list[tuple[dict[str, Any], str]]:
    """Of each parameter and buffer, in order, the dict of its module that holds it, and its name there."""
    found: list[tuple[dict[str, Any], str]] = []
    count = len(captured.trained) + len(captured.frozen)
    for place, name in enumerate((*captured.trained, *captured.frozen, *captured.buffers)):
        path, _, last = name.rpartition(".")
        module = model.get_submodule(path)
        found.append((module._parameters if place < count else module._buffers, last))
    return found


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, torch.Tensor):
        return isinstance(got, torch.Tensor) and same_bits(got, wanted)
    return not isinstance(wanted, (bool, int, float, str)) or bool(got == wanted)


def _key(inputs: Any) -> Any:
    leaves, spec = pytree.tree_flatten(inputs)
    return str(spec), tuple(
        (tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, torch.Tensor) else repr(leaf)
        for leaf in leaves
    )
