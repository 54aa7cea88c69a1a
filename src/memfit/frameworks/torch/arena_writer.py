"""The code of an arena's step: one line an op, its arguments made beforehand, its results at fixed addresses.

    mul_out(constant_3, 0.125, out=constant_4)                     a form that writes where it is told
    begin(7); made = layer_norm(constant_4, [16], ...)             one that allocates: the allocator answers from the plan
    if end(7): put(7, made)                                        not as rehearsed: copied to its place, and counted

Every value of the program lies at one address for ever, so tensors over it, and views of them, exist before the step
runs. Only the step's inputs change from call to call: views of them are made where they are read.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from memfit.frameworks.torch import random_ops
from memfit.frameworks.torch.arena_rehearsal import FILL, OUT, OVER, PLAIN, SERVED, Known, Rehearsed
from memfit.frameworks.torch.inplace import in_place_call
from memfit.frameworks.torch.program import METADATA_ONLY, Program, is_random

Body = Callable[..., list[Any]]


def body_of(
    program: Program, schedule: Sequence[int], found: Rehearsed, fixed: dict[Node, torch.Tensor], live: set[Node],
    calls: Any, put: Callable[[int, Any], None],
) -> tuple[Body, str]:  # fmt: skip
    """The function of (placeholder tensors, look) that runs a step, and its source.

    Args:
        fixed: values that have a tensor over the arena, parameters and buffers.
        live: placeholders whose tensors change from call to call.
        calls: ``PlannedCalls``, or None where what an op allocates comes from torch.
        put: copies an op's results to their places.
    """
    writer = _Writer(program, found, fixed, live, calls is not None)
    source = writer.source(schedule)
    scope: dict[str, Any] = {**writer.constants, "put": put}
    if calls is not None:
        scope |= {"begin": calls.begin, "end": calls.end}
    exec(compile(source, "<memfit arena>", "exec"), scope)
    return scope["run"], source


class _Writer:
    def __init__(
        self, program: Program, found: Rehearsed, fixed: dict[Node, torch.Tensor], live: set[Node], served: bool
    ) -> None:
        self.program, self.found, self.fixed, self.live, self.served = program, found, dict(fixed), live, served
        self.constants: dict[str, Any] = {"inf": math.inf, "nan": math.nan}
        self.names: dict[int, str] = {}
        self.moving: dict[Node, bool] = {}
        self.placeholders = [n for n in program.module.graph.nodes if n.op == "placeholder"]
        self.items: dict[Node, list[Node]] = {}
        for node in found.laid:
            if node.target is operator.getitem:
                self.items.setdefault(node.args[0], []).append(node)  # type: ignore[arg-type]

    def source(self, schedule: Sequence[int]) -> str:
        lines = ["def run(placeholders, look):"]
        for place, node in enumerate(self.placeholders):
            if node in self.live:
                lines.append(f"    {node.name} = placeholders[{place}]")
        for index in schedule:
            lines += [f"    {line}" for line in self.lines_of(index)]
        lines.append(f"    return [{', '.join(self.literal(output) for output in self.program.outputs)}]")
        return "\n".join(lines) + "\n"

    def lines_of(self, index: int) -> list[str]:
        if index in self.program.readings:
            return [f"look({self.literal(self.program.readings[index])})"]
        node, known = self.program.nodes[index], self.found.ops[index]
        assert node is not None
        op = self.program.graph.ops[index]
        if known.form == PLAIN and not op.changes and not is_random(node):
            return []  # its results have no bytes
        call = self.call(node, index, known)
        if known.form != SERVED:
            return self.within(index, call, known) if known.calls else [call] if call else []
        if not self.served:
            return [f"put({index}, {call})"] if any(self.found.nbytes[s] for s in op.writes) else [call]
        return [f"begin({index}); made = {call}", f"if end({index}): put({index}, made)", "made = None"]

    def within(self, index: int, call: str, known: Known) -> list[str]:
        return [f"begin({index}); {call}; end({index})"] if self.served else [call]

    def call(self, node: Node, index: int, known: Known) -> str:
        arguments = [self.literal(a) for a in node.args] + [f"{k}={self.literal(v)}" for k, v in node.kwargs.items()]
        if known.form == FILL:
            return self.filled(node, arguments)
        if known.form == OVER:
            form = in_place_call(node, self.program.graph.ops[index].reuse, self.program.storage_of)
            assert form is not None
            target, keyword, place = form
            if keyword != "self":
                arguments.append(f"{keyword}={self.literal(node.args[place])}")
            return f"{self.constant(target)}({', '.join(arguments)})"
        if known.form == OUT and known.out is not None:
            target, names = known.out
            results = [node] if node in self.fixed else self.items[node]
            results.sort(key=lambda n: 0 if n is node else int(n.args[1]))  # type: ignore[arg-type]
            outs = [f"{name}={self.literal(value)}" for name, value in zip(names, results, strict=True)]
            return f"{self.constant(target)}({', '.join(arguments + outs)})"
        return f"{self.constant(node.target)}({', '.join(arguments)})"

    def filled(self, node: Node, arguments: list[str]) -> str:
        into, name = self.literal(node), str(node.target)
        if name not in METADATA_ONLY:
            return f"{self.constant(random_ops.IN_PLACE[name])}({', '.join([into, *arguments[1:]])})"
        kind = name.partition(".")[2]
        if "zeros" in kind:
            return f"{into}.zero_()"
        if "ones" in kind:
            return f"{into}.fill_(1)"
        if "full" in kind:
            return f"{into}.fill_({arguments[1 if kind.startswith('full_like') else 2]})"
        return ""

    def moves(self, node: Node) -> bool:
        """Whether the value's address may change from call to call."""
        if node not in self.moving:
            self.moving[node] = node in self.live or (
                node in self.program.views and any(self.moves(n) for n in node.all_input_nodes)
            )
        return self.moving[node]

    def value(self, node: Node) -> Any:
        """The tensor, made once, of a value that stays where it is; of a view of several, the list."""
        if node not in self.fixed:
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), self.value)
            self.fixed[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return self.fixed[node]

    def expression(self, node: Node) -> str:
        if not self.moves(node):
            return self.constant(self.value(node))
        if node in self.live:
            return node.name
        if node.target is operator.getitem:
            return f"{self.literal(node.args[0])}[{node.args[1]}]"
        arguments = [self.literal(a) for a in node.args] + [f"{k}={self.literal(v)}" for k, v in node.kwargs.items()]
        return f"{self.constant(node.target)}({', '.join(arguments)})"

    def literal(self, value: Any) -> str:
        if isinstance(value, Node):
            return self.expression(value)
        if isinstance(value, list):
            return f"[{', '.join(self.literal(item) for item in value)}]"
        if isinstance(value, tuple):
            return f"({''.join(self.literal(item) + ', ' for item in value)})"
        if value is None or isinstance(value, (bool, int, str, float)):
            return repr(value)
        return self.constant(value)

    def constant(self, value: Any) -> str:
        key = id(value)
        if key not in self.names:
            self.names[key] = f"constant_{len(self.names)}"
            self.constants[self.names[key]] = value
        return self.names[key]


def results_of(program: Program, index: int, fixed: dict[Node, torch.Tensor]) -> list[tuple[Node, int]]:
    """The values that op ``index`` makes and that lie in the arena, each with its place among the flat results."""
    node = program.nodes[index]
    if node is None:
        return []
    if node in fixed:
        return [(node, 0)]
    return [(n, int(n.args[1])) for n in fixed if n.target is operator.getitem and n.args[0] is node]  # type: ignore[arg-type]


def put_in_place(made: Any, places: Sequence[tuple[torch.Tensor, int]]) -> None:
    """Copy an op's results to where they were planned."""
    given = made if isinstance(made, (tuple, list)) else [made]
    for tensor, place in places:
        tensor.copy_(given[place])
