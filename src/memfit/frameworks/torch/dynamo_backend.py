"""``torch.compile(model, backend="memfit", options={"budget": "2GiB"})``: compiled forward and backward in a budget.

The budget limits all tensors of the compiled region: parameters and inputs, what forward keeps, what backward makes,
gradients included. Let the region compute the loss as well; the optimizer and its state are outside of it and of the
budget. AOTAutograd gives the joint graph; it is planned as ``fit`` plans a step and cut in two (``two_halves``).
Without a budget the ops run in the program's order and everything is kept.

One plan per set of input shapes. Under a graph break there is no joint graph and no promise: the first call raises
``CaptureError`` with the line. Errors are raised by that first call, as they are, not wrapped by the compiler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._dynamo.backends.common import aot_autograd
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from memfit.errors import BudgetError, CaptureError, MemfitError
from memfit.frameworks.torch.measure import CostTable, measured, replace_graph
from memfit.frameworks.torch.program import Program, is_random, program_of
from memfit.frameworks.torch.two_halves import (
    STATE_BYTES,
    crossing_reuse,
    cut_of,
    halves_of,
    peak_in_halves,
    with_boundary,
    without_reuse,
)
from memfit.passes.rematerialize import rematerialize
from memfit.units import parse_bytes

_Compiled = Callable[..., Any]


def memfit_backend(
    module: fx.GraphModule, example_inputs: Sequence[Any], *, options: dict[str, Any] | None = None
) -> _Compiled:
    """The entry point of ``torch.compile``.

    Args:
        module: the graph that Dynamo found.
        example_inputs: its inputs, fake or real.
        options: ``budget``: bytes, or a size such as ``2GiB``; left out, nothing is planned.

    Returns:
        a callable; it raises ``BudgetError`` or ``CaptureError`` where the budget cannot be kept or promised.
    """
    unknown = sorted(set(options or {}) - {"budget"})
    try:
        if unknown:
            raise CaptureError(f"the backend does not know the option {unknown[0]!r}", hint="options: budget")
        budget = None if not options or options.get("budget") is None else parse_bytes(options["budget"])
        if budget is not None:
            _refuse_break(module)
        if any(isinstance(value, torch.SymInt) or _symbolic(value) for value in example_inputs):
            return _per_shape(module, budget)
        return _compiled(module, example_inputs, budget)
    except MemfitError as error:
        return _raising(error)


def _raising(error: MemfitError) -> _Compiled:
    def raises(*_: Any) -> Any:
        raise error

    return raises


def _symbolic(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and any(isinstance(n, torch.SymInt) for n in value.shape)


def _refuse_break(module: fx.GraphModule) -> None:
    reason = getattr(module, "compile_subgraph_reason", None)
    if reason is not None and reason.graph_break:
        frame = reason.user_stack[-1] if reason.user_stack else None
        where = f"{frame.filename}:{frame.lineno}" if frame is not None else ""
        why = str(reason.reason).strip().splitlines()[0]
        raise CaptureError(f"a graph break ({why})", where, "memfit.fit works on the modules of such a program")


def _per_shape(module: fx.GraphModule, budget: int | None) -> _Compiled:
    """A plan for each set of shapes, made when they first come."""
    known: dict[Any, _Compiled] = {}

    numbers = _number_inputs(module)

    def run(*args: Any) -> Any:
        key = tuple(
            args[i].item() if i in numbers else (tuple(a.shape), a.dtype) if isinstance(a, torch.Tensor) else a
            for i, a in enumerate(args)
        )
        if key not in known:
            try:
                known[key] = _compiled(_specialised(module, args, numbers), list(args), budget)
            except MemfitError as error:
                known[key] = _raising(error)
        return known[key](*args)

    return run


def _number_inputs(module: fx.GraphModule) -> frozenset[int]:
    """Positions of the inputs that are Python numbers in a tensor: all that the graph does with them is ``.item()``."""
    placeholders = module.graph.find_nodes(op="placeholder")
    return frozenset(
        place
        for place, node in enumerate(placeholders)
        if node.users and all(user.op == "call_method" and user.target == "item" for user in node.users)
    )


def _specialised(module: fx.GraphModule, args: Sequence[Any], numbers: frozenset[int]) -> fx.GraphModule:
    """The graph with the numbers among its inputs written in."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(module.graph, copied)
    graph.output(output)
    for place, (node, value) in enumerate(zip(module.graph.find_nodes(op="placeholder"), args, strict=True)):
        if place in numbers:
            for user in list(copied[node].users):
                user.replace_all_uses_with(value.item())
                graph.erase_node(user)
        elif isinstance(value, (int, float)):
            copied[node].replace_all_uses_with(value)
    return fx.GraphModule(module, graph)


def _compiled(module: fx.GraphModule, example_inputs: Sequence[Any], budget: int | None) -> _Compiled:
    error: list[MemfitError] = []

    def partition(
        joint: fx.GraphModule, inputs: Any, *, num_fwd_outputs: int, **_: Any
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        try:
            return _planned(joint, num_fwd_outputs, budget)
        except MemfitError as refused:
            error.append(refused)
            return _planned(joint, num_fwd_outputs, None)

    def inference(graph: fx.GraphModule, inputs: Any) -> _Compiled:
        if budget is not None:
            try:
                outputs = len(pytree.tree_leaves([n.args for n in graph.graph.nodes if n.op == "output"]))
                graph = _planned(graph, outputs, budget)[0]
            except MemfitError as refused:
                error.append(refused)
        return _boxed(graph)

    backend = aot_autograd(
        fw_compiler=lambda graph, inputs: _boxed(graph), bw_compiler=lambda graph, inputs: _boxed(graph),
        inference_compiler=inference, partition_fn=partition,
    )  # fmt: skip
    run = backend(module, example_inputs)
    return _raising(error[0]) if error else run


def _boxed(module: fx.GraphModule) -> _Compiled:
    """The module as a function of a list of arguments that it empties, so that saved values are freed when used up."""
    module.graph.set_codegen(torch.fx.graph._BoxedCodeGen())
    module.recompile()

    def run(args: list[Any]) -> Any:
        return module.forward(args)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _planned(joint: fx.GraphModule, outputs: int, budget: int | None) -> tuple[fx.GraphModule, fx.GraphModule]:
    placeholders = [node for node in joint.graph.nodes if node.op == "placeholder"]
    tangents = [node for node in placeholders if "tangents" in str(node.target)]
    primals = [node for node in placeholders if node not in tangents]
    program = program_of(joint, tuple(node.name for node in placeholders))
    program = replace_graph(program, with_boundary(program, outputs, tangents))
    if budget is None:  # costs and bits of in-place forms are known of measured programs alone
        program = replace_graph(program, without_reuse(program.graph))
        return halves_of(program, range(len(program.graph.ops)), outputs, primals, tangents)
    with _disable_current_modes():  # AOTAutograd calls from inside its fake tensor mode; costs are of real runs
        program = measured(program, CostTable())
    program, schedule = _scheduled(program, outputs, budget)
    return halves_of(program, schedule, outputs, primals, tangents)


def _scheduled(program: Program, outputs: int, budget: int) -> tuple[Program, Sequence[int]]:
    """A schedule within the budget, the generator states of the random ops that it runs again included.

    A plan may count on overwriting what crosses the cut, which is not known before there is a plan. Where that breaks the
    budget, those ops give up their in-place form and the program is planned again: each round fewer have one.
    """
    room = budget
    while True:
        graph = program.graph
        try:
            plan = rematerialize(graph, room)
        except BudgetError as error:
            raise BudgetError(error.needed + budget - room, budget, error.where, error.hint) from None
        repeated = {index for index, runs in Counter(plan.schedule).items() if runs > 1}
        states = STATE_BYTES * sum(is_random(node) for i in repeated if (node := program.nodes[i]) is not None)
        crossing = crossing_reuse(graph, plan.schedule, cut_of(program, plan.schedule, outputs))
        if peak_in_halves(graph, plan.schedule, crossing) + states <= budget:
            return program, plan.schedule
        if crossing:
            program = replace_graph(program, without_reuse(graph, {plan.schedule[p] for p in crossing}))
        else:
            room = min(room - 1, budget - states)
