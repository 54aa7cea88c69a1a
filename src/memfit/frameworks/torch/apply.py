"""Apply a schedule to a captured program: straight-line Python that runs each op and drops each tensor on time.

The generated function is the schedule, one line an op: views are made where they are read, a tensor's name is cleared
right after the last op that reads it (``analyses.liveness`` says where: the simulator and the code share it), an op that
runs again with random numbers gets the generator state of its first run, and a dying input is overwritten where the
simulator counted on it. Cost per op: about two microseconds over the op itself.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from memfit.analyses.liveness import Lifetimes, lifetimes
from memfit.frameworks.torch import random_ops
from memfit.frameworks.torch.batch_norm import normalise
from memfit.frameworks.torch.inplace import in_place_call
from memfit.frameworks.torch.pinned_memory import slow_memory_of
from memfit.frameworks.torch.program import METADATA_ONLY, Program, hidden_changes, is_random
from memfit.passes.offload import LOAD, SAVE

Runner = Callable[
    [Sequence[torch.Tensor], Callable[[int, torch.Tensor], None], Callable[[torch.Tensor], None]], list[Any]
]


def runner_of(program: Program, schedule: Sequence[int], spare: int = 0) -> Runner:
    """A function of (placeholder tensors, optimizer step, look) that runs ``schedule`` once and returns the outputs.

    The optimizer step is called with a placeholder position and that parameter's gradient. Outputs are in the FX graph's
    order; gradients that the optimizer consumed are None. ``look`` is given each reading, in order. Runs
    below autograd: nothing is recorded. ``spare``: bytes that the budget leaves above the plan's peak.
    """
    writer = _Writer(program, schedule, lifetimes(program.graph, schedule), spare)
    source = writer.source()
    scope = dict(writer.constants)
    exec(compile(source, "<memfit schedule>", "exec"), scope)
    body = scope["run"]

    trains = any(op.phase == "backward" for op in program.graph.ops)

    def run(
        placeholders: Sequence[torch.Tensor], optimizer_step: Callable[[int, torch.Tensor], None],
        look: Callable[[torch.Tensor], None] = lambda value: None,
    ) -> list[Any]:  # fmt: skip
        # Grad mode stays on for a training step: kernels ask it what to keep (oneDNN's recurrent layers their workspace).
        def update(position: int, gradient: torch.Tensor) -> None:
            with torch.no_grad():
                optimizer_step(position, gradient)

        with torch.set_grad_enabled(trains), torch._C._AutoDispatchBelowAutograd():
            return body(placeholders, update, look)

    run.source = source  # type: ignore[attr-defined]
    return run


def _random_state() -> bytes:
    # As Python bytes: a state kept from a first run to the last must not count among the step's tensors.
    return torch.get_rng_state().numpy().tobytes()


def _set_random_state(state: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


class _Writer:
    def __init__(self, program: Program, schedule: Sequence[int], alive: Lifetimes, spare: int) -> None:
        self.program, self.schedule, self.alive = program, schedule, alive
        self.constants: dict[str, Any] = {
            "get_rng_state": _random_state, "set_rng_state": _set_random_state, "inf": math.inf, "nan": math.nan,
        }  # fmt: skip
        self.names: dict[int, str] = {}
        self.variables: dict[int, list[str]] = {}
        self.runs = Counter(schedule)
        self.seen: set[int] = set()
        self.placeholders = [n for n in program.module.graph.nodes if n.op == "placeholder"]
        self.reads: tuple[int, ...] = ()
        self.loaded = {storage: new for new, storage in program.loaded.items()}
        self.value_of = {s: n for n, s in program.storage_of.items() if s in self.loaded and n not in program.views}
        self.prefetches = self.planned_prefetches()
        if program.loaded:
            device = next(iter(self.value_of.values())).meta["val"].device
            self.constants["slow"] = slow_memory_of(device, spare)
        self.items: dict[Node, list[Node]] = {}
        for node in program.storage_of:
            if node.target is operator.getitem and node not in program.views:
                self.items.setdefault(node.args[0], []).append(node)  # type: ignore[arg-type]

    def source(self) -> str:
        lines = ["def run(placeholders, optimizer_step, look):"]
        used = {n for n in self.placeholders if n in self.program.storage_of}
        for place, node in enumerate(self.placeholders):
            if node in used:
                lines.append(f"    {node.name} = placeholders[{place}]")
        for position, index in enumerate(self.schedule):
            lines += [f"    {line}" for line in self.lines_of(position, index)]
        lines.append(f"    return [{', '.join(self.output(node) for node in self.program.outputs)}]")
        return "\n".join(lines) + "\n"

    def planned_prefetches(self) -> dict[int, list[int]]:
        """Position -> slots to read ahead there: as much earlier than the load as the load takes."""
        found: dict[int, list[int]] = {}
        ops = self.program.graph.ops
        for position, index in enumerate(self.schedule):
            if ops[index].name == LOAD:
                ahead, left = position, ops[index].seconds
                while ahead > 0 and left > 0 and ops[self.schedule[ahead - 1]].name != SAVE:
                    ahead -= 1
                    left -= ops[self.schedule[ahead]].seconds
                found.setdefault(ahead, []).append(int(ops[index].label))
        return found

    def output(self, node: Any) -> str:
        if not isinstance(node, Node):
            return self.literal(node)
        if node in self.program.gradient_nodes.values():
            return "None"
        return self.expression(node)

    def lines_of(self, position: int, index: int) -> list[str]:
        node = self.program.nodes[index]
        op = self.program.graph.ops[index]
        self.reads = op.reads
        freed = set(self.alive.freed[position])
        lines: list[str] = []
        lines += [f"slow.prefetch({slot})" for slot in self.prefetches.get(position, ())]
        if op.name == SAVE:
            lines.append(f"slow.save({op.label}, {self.expression(self.value_of[int(op.label)])})")
        elif op.name == LOAD:
            value = self.value_of[int(op.label)]
            name = f"{value.name}_loaded"
            self.variables.setdefault(op.writes[0], []).append(name)
            lines.append(f"{name} = slow.load({op.label}, {self.constant(value.meta['val'])})")
        elif index in self.program.readings:
            lines.append(f"look({self.expression(self.program.readings[index])})")
        elif node is None:
            gradient = self.expression(self.program.gradient_nodes[index])
            lines.append(f"optimizer_step({self.program.parameter[index]}, {gradient})")
        elif self.program.halves.get(index) == "statistics":
            lines += self.statistics(node, position, index, freed)
        elif self.program.halves.get(index) == "normalise":
            lines.append(self.normalised(node, position, index))
        else:
            call = self.call(node, position, index)
            again = index in self.seen
            replayed = is_random(node) and self.runs[index] > 1
            if replayed and not again:
                lines.append(f"state_{index} = get_rng_state()")
            if replayed and again:
                lines += ["state = get_rng_state()", f"set_rng_state(state_{index})"]
            lines += self.assigned(node, call, freed)
            if replayed and again:
                lines += ["set_rng_state(state)", "state = None"]
        self.seen.add(index)
        names = [name for storage in sorted(freed) for name in self.variables.pop(storage, [])]
        if names:
            lines.append(" = ".join(names) + " = None")
        return lines

    def statistics(self, node: Node, position: int, index: int, freed: set[int]) -> list[str]:
        absent = hidden_changes(node) if index in self.seen else ()
        lines = [f"several = {self.target(node.target)}({', '.join(self.arguments(node, absent))})"]
        for item in self.items.get(node, []):
            if item.args[1] != 0 and self.program.storage_of[item] not in freed:
                lines.append(f"{self.name(item)} = several[{item.args[1]}]")
        return lines if self.halves_meet(position) else [*lines, "several = None"]

    def normalised(self, node: Node, position: int, index: int) -> str:
        out = next(item for item in self.items[node] if item.args[1] == 0)
        if position and self.halves_meet(position - 1):
            return f"{self.name(out)} = several[0]; several = None"
        mean, inverse = (next(item for item in self.items[node] if item.args[1] == place) for place in (1, 2))
        given = [self.literal(argument) for argument in node.args[:3]] + [mean.name, inverse.name]
        return f"{self.name(out)} = {self.constant(normalise)}({', '.join(given)})"

    def halves_meet(self, position: int) -> bool:
        """Whether the statistics at ``position`` are followed at once by the normalisation of the same call."""
        first = self.schedule[position]
        following = self.schedule[position + 1] if position + 1 < len(self.schedule) else -1
        return (
            self.program.halves.get(first) == "statistics" and self.program.halves.get(following) == "normalise"
            and self.program.nodes[first] is self.program.nodes[following]
        )  # fmt: skip

    def assigned(self, node: Node, call: str, freed: set[int]) -> list[str]:
        storage_of = self.program.storage_of
        if node in storage_of:
            return [f"{self.name(node)} = {call}"]
        kept = [item for item in self.items.get(node, []) if storage_of[item] not in freed]
        if not kept:
            return [call]
        lines = [f"several = {call}"]
        lines += [f"{self.name(item)} = several[{item.args[1]}]" for item in kept]
        return [*lines, "several = None"]

    def name(self, node: Node) -> str:
        storage = self.program.storage_of[node]
        names = self.variables.setdefault(storage, [])
        if node.name not in names and not self.program.graph.storages[storage].constant:
            names.append(node.name)
        return node.name

    def call(self, node: Node, position: int, index: int) -> str:
        if str(node.target) in METADATA_ONLY:
            return self.filled(node)
        if self.alive.reused[position]:
            storage = self.program.graph.ops[index].reuse
            found = in_place_call(node, storage, self.program.storage_of)
            if found is not None:
                target, keyword, place = found
                arguments = self.arguments(node)
                if keyword != "self":
                    arguments.append(f"{keyword}={self.literal(node.args[place])}")
                return f"{self.target(target)}({', '.join(arguments)})"
        if str(node.target) in random_ops.NAMES:
            form = random_ops.IN_PLACE[str(node.target)]
            like = node.args[0].meta["val"]
            return f"{self.target(form)}({', '.join([self.empty(like), *self.arguments(node)[1:]])})"
        absent = hidden_changes(node) if index in self.seen else ()
        return f"{self.target(node.target)}({', '.join(self.arguments(node, absent))})"

    def filled(self, node: Node) -> str:
        made = node.meta["val"]
        base = self.empty(made)
        kind = str(node.target).partition(".")[2]
        if "zeros" in kind:
            return f"{base}.zero_()"
        if "ones" in kind:
            return f"{base}.fill_(1)"
        if kind.startswith("full_like"):
            return f"{base}.fill_({self.literal(node.args[1])})"
        if kind.startswith("new_full"):
            return f"{base}.fill_({self.literal(node.args[2])})"
        return base

    def empty(self, made: torch.Tensor) -> str:
        layout = f"{tuple(made.shape)}, {tuple(made.stride())}"
        kind = f"dtype={self.constant(made.dtype)}, device={self.constant(made.device)}"
        return f"{self.target(torch.empty_strided)}({layout}, {kind})"

    def arguments(self, node: Node, absent: tuple[int, ...] = ()) -> list[str]:
        texts = ["None" if i in absent else self.literal(value) for i, value in enumerate(node.args)]
        return texts + [f"{key}={self.literal(value)}" for key, value in node.kwargs.items()]

    def expression(self, node: Node) -> str:
        if node not in self.program.views:
            if node.op == "get_attr":
                value: Any = self.program.module
                for part in str(node.target).split("."):
                    value = getattr(value, part)
                return self.constant(value)
            again = self.loaded.get(self.program.storage_of.get(node, -1))
            return node.name if again is None or again not in self.reads else f"{node.name}_loaded"
        if node.target is operator.getitem:
            return f"{self.literal(node.args[0])}[{node.args[1]}]"
        return f"{self.target(node.target)}({', '.join(self.arguments(node))})"

    def literal(self, value: Any) -> str:
        if isinstance(value, Node):
            return self.expression(value)
        if isinstance(value, list):
            return f"[{', '.join(self.literal(item) for item in value)}]"
        if isinstance(value, tuple):
            return f"({''.join(self.literal(item) + ', ' for item in value)})"
        if value is None or isinstance(value, (bool, int, str)):
            return repr(value)
        if isinstance(value, float):
            return repr(value)
        return self.constant(value)

    def target(self, target: Any) -> str:
        return self.constant(target)

    def constant(self, value: Any) -> str:
        key = id(value)
        if key not in self.names:
            self.names[key] = f"constant_{len(self.names)}"
            self.constants[self.names[key]] = value
        return self.names[key]
