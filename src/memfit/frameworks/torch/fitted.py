"""FittedStep: a user's step that keeps a byte budget; called in place of forward, backward and optimizer.

One plan per shape bucket (the shapes and dtypes of the input tensors), made at the first call with those shapes and kept.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from memfit.analyses.liveness import simulate
from memfit.errors import BudgetError, TraceError
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch import optimizer as optimizers
from memfit.frameworks.torch.apply import Runner, runner_of
from memfit.frameworks.torch.capture import Capture, capture, input_tensors
from memfit.frameworks.torch.chunked_loss import chunked_heads, find_heads
from memfit.frameworks.torch.measure import CostTable, Progress, measured, replace_graph
from memfit.frameworks.torch.program import Program, movable, offloaded, program_of
from memfit.frameworks.torch.slow_memory import map_state, transfer_speed
from memfit.ir.graph import Storage, why_invalid
from memfit.ir.step import Step
from memfit.passes.rematerialize import SchedulePlan, rematerialize


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

    Raises:
        BudgetError: the budget cannot be kept.
        CaptureError: the step cannot be captured as one graph.
    """

    def __init__(
        self, step: Step, budget: int, *, held: int = 0, options: dict[str, Any] | None = None,
        schedules: dict[str, list[int]] | None = None,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.step, self.budget, self.held, self.progress = step, budget, held, progress
        options = options or {}
        self.offload = float(options.get("offload", 0.0))
        self.state_in_file = options.get("optimizer_state") == "file"
        self.chunked_loss = bool(options.get("chunked_loss"))
        self.schedules = schedules or {}
        self.buckets: dict[Any, Bucket] = {}
        self.first = self._bucket(step.inputs)

    def __call__(self, inputs: Any = None) -> Any:
        """Run one step on ``inputs`` (default: the step's own example batch)."""
        inputs = self.step.inputs if inputs is None else inputs
        bucket = self._bucket(inputs)
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

        outputs = bucket.run(tensors, optimizer_step)
        if not captured.training:
            return pytree.tree_unflatten(outputs, captured.output_spec)
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
            self.buckets[key] = self._planned(key, inputs)
        return self.buckets[key]

    def _planned(self, key: Any, inputs: Any) -> Bucket:
        start = time.perf_counter()
        step = self.step if inputs is self.step.inputs else replace(self.step, inputs=inputs)
        if self.progress is not None:
            self.progress("capturing the step", 0, 3)
        heads = _heads(step) if self.chunked_loss else ()
        with chunked_heads(step.model, heads) if heads else nullcontext():
            captured, program = measured_program(step, self.progress, state_in_file=self.state_in_file)
        if self.offload:
            program = offloaded(program, _first_share(program, self.offload), transfer_speed())
        if self.held:
            held = Storage(self.held, constant=True, label="held beside the model")
            program = replace_graph(program, replace(program.graph, storages=(*program.graph.storages, held)))
        planning = time.process_time()
        known = self.schedules.get(fingerprint(program))
        if known is not None:
            plan = _as_planned(program, known, self.budget)
        else:
            if self.progress is not None:
                self.progress("planning", 2, 3)
            plan = rematerialize(program.graph, self.budget, progress=self._planning)
        plan_seconds = time.process_time() - planning
        run = runner_of(program, plan.schedule)
        return Bucket(key, captured, program, plan, run, time.perf_counter() - start, plan_seconds)

    def _planning(self, word: str, fraction: float) -> None:
        if self.progress is not None:
            self.progress(f"planning: {word}", int(100 * fraction), 100)


def measured_program(
    step: Step, progress: Progress | None = None, *, state_in_file: bool = False
) -> tuple[Capture, Program]:
    """The step captured, as a Program with measured costs."""
    captured = capture(step)
    alone = captured.training and step.optimizer is not None and optimizers.steps_parameters_alone(step.optimizer)
    table = CostTable()
    with allocator_hook.installed():
        program = program_of(
            captured.module,
            captured.names,
            optimizer=tuple(range(len(captured.trained))) if alone else (),
            split=table.splits,
        )
    parameters = dict(step.model.named_parameters())
    trained = [parameters[name] for name in captured.trained]
    return captured, measured(
        program, table, optimizer=step.optimizer, parameters=trained, state_in_file=state_in_file, progress=progress
    )


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
