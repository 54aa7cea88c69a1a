"""FittedStep: a user's step that keeps a byte budget; called in place of forward, backward and optimizer.

One plan per shape bucket (the shapes and dtypes of the input tensors), made at the first call with those shapes and kept;
where the program looks at values (``outcomes``), one per way through it. A call that turns out to go another way is taken
back, before anything but buffers and random state changed, and runs by the plan of that way. After ``MOST_WAYS`` of them,
or where the budget cannot be kept on that way, it runs as the user wrote it, and a warning says so: the results count.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from memfit.analyses.liveness import simulate
from memfit.errors import BudgetError, CaptureError, TraceError
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch import optimizer as optimizers
from memfit.frameworks.torch.apply import Runner, runner_of
from memfit.frameworks.torch.capture import Capture, capture, input_tensors
from memfit.frameworks.torch.chunked_loss import chunked_heads, find_heads
from memfit.frameworks.torch.kernel_layouts import Laid, as_kernels_lay
from memfit.frameworks.torch.measure import CostTable, Progress, measured, replace_graph
from memfit.frameworks.torch.outcomes import Checker, OtherWayError, goes_with
from memfit.frameworks.torch.pinned_memory import transfer_speed_of
from memfit.frameworks.torch.program import Program, movable, offloaded, program_of
from memfit.frameworks.torch.replay_state import RandomState
from memfit.frameworks.torch.slow_memory import map_state
from memfit.frameworks.torch.step_meter import device_of
from memfit.frameworks.torch.steps import run_step
from memfit.ir.graph import Storage, why_invalid
from memfit.ir.step import Step
from memfit.passes.rematerialize import SchedulePlan, rematerialize

MOST_WAYS = 8
MOST_TRACES = 8


@dataclass(frozen=True)
class Bucket:
    """The plan of one shape bucket. ``shapes``: (shape, dtype) of each input tensor.

    ``seconds``: wall seconds to capture, measure and plan; ``plan_seconds``: CPU seconds of planning alone.
    """

    shapes: tuple[tuple[tuple[int, ...], str], ...]
    captured: Capture
    program: Program
    plan: SchedulePlan
    run: Runner
    seconds: float
    plan_seconds: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Digest of the captured graph: ops, shapes, arguments."""
        return fingerprint(self.program)


class FittedStep:
    """A step within ``budget`` bytes of tensors (parameters, inputs and optimizer state included).

    Calling it runs the whole step and returns what ``run_step`` would: the detached loss, or the inference output.
    Parameters, buffers, optimizer state and the random state end as after the eager step, bit for bit. Without an
    optimizer the gradients are left in ``.grad``.

    Args:
        step: the step; its model and optimizer are used in place.
        budget: bytes.
        held: bytes of tensors that the program holds beside its model, inputs and optimizer.
        options: ``offload``: share, 0 to 1, of the bytes idle between forward and backward that waits in a file;
            ``optimizer_state``: ``"file"`` keeps it in file-mapped memory, where it does not count;
            ``chunked_loss``: true computes a language-model head and its loss chunk by chunk (other order of sums).
        schedules: fingerprint -> schedule from a recipe; such a bucket is not planned again.
        captured: the step's capture, where it is known already; of no use with ``chunked_loss``.

    Raises:
        BudgetError: the budget cannot be kept.
        CaptureError: the step cannot be captured as one graph.
    """

    def __init__(
        self, step: Step, budget: int, *, held: int = 0, options: dict[str, Any] | None = None,
        schedules: dict[str, list[int]] | None = None,
        progress: Progress | None = None, captured: Capture | None = None,
    ) -> None:  # fmt: skip
        self.step, self.budget, self.held, self.progress = step, budget, held, progress
        options = options or {}
        self.offload = float(options.get("offload", 0.0))
        self.state_in_file = options.get("optimizer_state") == "file"
        self.chunked_loss = bool(options.get("chunked_loss"))
        self.schedules = schedules or {}
        self.buckets: dict[Any, list[Bucket]] = {}
        self.warned = False
        self.known = None if self.chunked_loss else captured
        self.first = self._bucket(step.inputs)

    def __call__(self, inputs: Any = None) -> Any:
        """Run one step on ``inputs`` (default: the step's own example batch)."""
        inputs = self.step.inputs if inputs is None else inputs
        bucket = self._bucket(inputs)
        while True:
            start = _Before(self.step, bucket)
            found, other = self._run(bucket, inputs)
            if other is None:
                return found
            start.restore()
            following = self._other_way(bucket, inputs, other)
            if following is None:
                return run_step(replace(self.step, inputs=inputs))
            bucket = following

    def _run(self, bucket: Bucket, inputs: Any) -> tuple[Any, tuple[Any, ...] | None]:
        """What the step returns; or None and the outcomes after which this is not its way."""
        try:
            return self._finished(bucket, inputs), None
        except OtherWayError as other:
            return None, other.outcomes

    def _other_way(self, bucket: Bucket, inputs: Any, outcomes: tuple[Any, ...]) -> Bucket | None:
        """The plan of the way with these first outcomes; None where the step is to run as it is."""
        ways = self.buckets[bucket.shapes]
        for known in ways:
            if goes_with(known.captured.tests, outcomes):
                return known
        why = f"it takes more than {MOST_WAYS} ways through its program"
        if len(ways) < MOST_WAYS:
            try:
                ways.append(self._planned(bucket.shapes, inputs))
                if goes_with(ways[-1].captured.tests, outcomes):
                    return ways[-1]
                why = "the way that it takes could not be recorded again"
            except (BudgetError, CaptureError) as error:
                why = str(error)
        where = bucket.captured.tests[len(outcomes) - 1].where
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"memfit: a step ran as it is, outside of its budget: at {where or 'a test of values'} it went another "
                f"way than planned, and {why}",
                stacklevel=3,
            )
        return None

    def _finished(self, bucket: Bucket, inputs: Any) -> Any:
        captured, step = bucket.captured, self.step
        parameters = dict(step.model.named_parameters())
        trained = [parameters[name] for name in captured.trained]
        buffers = dict(step.model.named_buffers())
        if captured.training and step.optimizer is None:
            step.model.zero_grad(set_to_none=True)
        tensors: list[torch.Tensor] = [
            *(parameter.detach() for parameter in trained),
            *(parameters[name].detach() for name in captured.frozen),
            *(buffers[name] for name in captured.buffers),
            *input_tensors(inputs),
            *captured.draws(),
        ]
        groups = optimizers.group_of(step.optimizer) if bucket.program.parameter else {}

        def optimizer_step(place: int, gradient: torch.Tensor) -> None:
            parameter = trained[place]
            if parameter.grad is not None:
                gradient = parameter.grad + gradient
                parameter.grad = None
            optimizers.step_alone(step.optimizer, groups, parameter, gradient)
            if self.state_in_file:
                map_state(step.optimizer.state.get(parameter, {}))

        outputs = bucket.run(tensors, optimizer_step, Checker(captured.tests))
        if not captured.training:
            return captured.output(outputs)
        for parameter, gradient in zip(trained, outputs[1:], strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        if step.optimizer is not None and not bucket.program.parameter:
            step.optimizer.step()
            step.optimizer.zero_grad(set_to_none=True)
        return outputs[0]

    def _bucket(self, inputs: Any) -> Bucket:
        key = tuple((tuple(tensor.shape), str(tensor.dtype)) for tensor in input_tensors(inputs))
        if key not in self.buckets:
            self.buckets[key] = [self._planned(key, inputs)]
        return self.buckets[key][0]

    def _planned(self, key: Any, inputs: Any) -> Bucket:
        start = time.perf_counter()
        step = self.step if inputs is self.step.inputs else replace(self.step, inputs=inputs)
        if self.progress is not None:
            self.progress("capturing the step", 0, 3)
        heads = _heads(step) if self.chunked_loss else ()
        with chunked_heads(step.model, heads) if heads else nullcontext():
            captured, program = measured_program(
                step, self.progress, state_in_file=self.state_in_file, captured=self.known
            )
        self.known = None
        if self.offload:
            program = offloaded(program, _first_share(program, self.offload), transfer_speed_of(device_of(step)))
        beside = [(self.held, "held beside the model"), (_kept_bytes(program), "kept until the way is known")]
        more = [Storage(nbytes, constant=True, label=label) for nbytes, label in beside if nbytes]
        if more:
            program = replace_graph(program, replace(program.graph, storages=(*program.graph.storages, *more)))
        planning = time.process_time()
        known = self.schedules.get(fingerprint(program))
        if known is not None:
            plan = _as_planned(program, known, self.budget)
        else:
            if self.progress is not None:
                self.progress("planning", 2, 3)
            plan = rematerialize(program.graph, self.budget, progress=self._planning)
        plan_seconds = time.process_time() - planning
        run = runner_of(program, plan.schedule, self.budget - plan.peak)
        return Bucket(key, captured, program, plan, run, time.perf_counter() - start, plan_seconds)

    def _planning(self, word: str, fraction: float) -> None:
        if self.progress is not None:
            self.progress(f"planning: {word}", int(100 * fraction), 100)


def measured_program(
    step: Step, progress: Progress | None = None, *, state_in_file: bool = False, captured: Capture | None = None
) -> tuple[Capture, Program]:
    """The step captured (or as it was captured before), as a Program with measured costs.

    Captured again where kernels lay out their results otherwise than PyTorch describes them (``kernel_layouts``).
    """
    layouts: dict[str, Laid] = {}
    for _ in range(MOST_TRACES):
        if captured is None:
            with as_kernels_lay(layouts):
                captured = capture(step)
        table = CostTable()
        program = _measured(captured, table, step, progress, state_in_file)
        if not table.mislaid:
            return captured, program
        captured = None
        layouts.update(table.mislaid)
    name = next(iter(table.mislaid.values()))[0]
    raise CaptureError(f"PyTorch describes the layout of what {name} gives otherwise than it is")


def _measured(
    captured: Capture, table: CostTable, step: Step, progress: Progress | None, state_in_file: bool
) -> Program:
    alone = captured.training and step.optimizer is not None and optimizers.steps_parameters_alone(step.optimizer)
    with allocator_hook.installed():
        program = program_of(
            captured.module,
            captured.names,
            optimizer=tuple(range(len(captured.trained))) if alone else (),
            split=table.splits,
            readings=captured.readings,
        )
    parameters = dict(step.model.named_parameters())
    trained = [parameters[name] for name in captured.trained]
    return measured(
        program, table, optimizer=step.optimizer, parameters=trained, state_in_file=state_in_file, progress=progress
    )


class _Before:
    """What a run may change before its last look at a value, to be put back."""

    def __init__(self, step: Step, bucket: Bucket) -> None:
        self.buffers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.random: RandomState | None = None
        if bucket.captured.tests:
            self.random = RandomState.now()
            changed = changed_while_looking(bucket.program)
            for name, buffer in step.model.named_buffers():
                if name in changed:
                    self.buffers.append((buffer, buffer.detach().clone()))

    def restore(self) -> None:
        """Put it back."""
        with torch.no_grad():
            for buffer, kept in self.buffers:
                buffer.copy_(kept)
        if self.random is not None:
            self.random.restore()


def changed_while_looking(program: Program) -> set[str]:
    """Labels of the constants that ops change before the program's last look at a value."""
    graph, last = program.graph, max(program.readings, default=-1)
    return {graph.storages[s].label for op in graph.ops[: last + 1] for s in op.changes}


def _kept_bytes(program: Program) -> int:
    labels = changed_while_looking(program)
    return sum(s.nbytes for s in program.graph.storages if s.constant and s.label in labels)


def fingerprint(program: Program) -> str:
    """Digest of what a schedule's indices mean: the ops, what they read and write, the sizes of what they make."""
    graph = program.graph
    text = repr([(op.name, op.reads, op.writes, op.changes) for op in graph.ops])
    text += repr([(s.nbytes, s.output) for s in graph.storages if not s.constant])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _heads(step: Step) -> tuple[str, ...]:
    # Finding them runs one forward: what that changes is put back.
    random_state = torch.get_rng_state()
    buffers = {name: buffer.clone() for name, buffer in step.model.named_buffers()}
    try:
        return find_heads(step)
    finally:
        torch.set_rng_state(random_state)
        with torch.no_grad():
            for name, buffer in step.model.named_buffers():
                buffer.copy_(buffers[name])


def _first_share(program: Program, share: float) -> list[int]:
    candidates = movable(program)
    sizes = [program.graph.storages[s].nbytes for s in candidates]
    target, chosen, total = share * sum(sizes), [], 0
    for storage, nbytes in zip(candidates, sizes, strict=True):
        if total >= target:
            break
        chosen.append(storage)
        total += nbytes
    return chosen


def _as_planned(program: Program, schedule: Sequence[int], budget: int) -> SchedulePlan:
    graph = program.graph
    why = why_invalid(graph, schedule)
    if why:
        raise TraceError("the recipe", f"its schedule does not run this program: {why}")
    base, found = simulate(graph, range(len(graph.ops))), simulate(graph, schedule)
    if found.peak > budget:
        raise BudgetError(found.peak, budget, "the recipe's own schedule", "plan again without the recipe")
    return SchedulePlan(
        tuple(schedule), found.peak, found.seconds, base.peak, base.seconds, graph.base_bytes, 0.0, found.peak, "recipe"
    )
