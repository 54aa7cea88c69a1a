"""Cut a planned schedule of a joint forward and backward graph into two FX modules, for AOTAutograd to run.

::

    schedule   f0 f1 f2 | f1' b2 b1 b0        cut after the last op that a forward output needs
    forward    primals -> outputs, and every value alive at the cut that the rest reads
    backward   those values, tangents -> gradients; f1' is its own node: FX frees a value after its last reader

Random ops that run again get the generator state of their first run, as one more value that crosses the cut.

An op writes over a dying input only where that instance was made in the same half: what crosses the cut is read again
when backward runs twice (``retain_graph``), and a tangent or a primal belongs to somebody else.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from memfit.analyses.liveness import lifetimes, simulate
from memfit.frameworks.torch.inplace import in_place_call, reusable_inputs
from memfit.frameworks.torch.program import METADATA_ONLY, Program, hidden_changes, is_random
from memfit.ir.graph import Graph

STATE_BYTES = 5056  # of the CPU generator


def random_state(device: torch.device) -> torch.Tensor:
    """State of the default generator of ``device``."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def replayed(
    state: torch.Tensor, device: torch.device, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run ``target`` from a generator state; the generator is left as it was."""
    present = random_state(device)
    _set_random_state(state, device)
    try:
        return target(*args, **kwargs)
    finally:
        _set_random_state(present, device)


def filled(
    size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype, device: torch.device, value: Any
) -> torch.Tensor:
    """A tensor of this layout, filled with ``value``; None leaves it empty."""
    made = torch.empty_strided(size, stride, dtype=dtype, device=device)
    return made if value is None else made.fill_(value)


def with_boundary(program: Program, outputs: int, tangents: Sequence[fx.Node]) -> Graph:
    """The Graph with forward outputs ordered before whatever reads a tangent.

    Ops that always run in backward reuse what is always made there, where they have the choice.

    Args:
        program: of the joint graph.
        outputs: how many of its outputs are forward's.
        tangents: its tangent placeholders.
    """
    graph = program.graph
    given = {program.storage_of[node] for node in tangents if node in program.storage_of}
    made = {
        program.storage_of[node]
        for node in program.outputs[:outputs]
        if isinstance(node, fx.Node) and node in program.storage_of
    }
    readers = [index for index, op in enumerate(graph.ops) if given & set(op.reads)]
    producers = {graph.producer[storage] for storage in made} - {-1}
    order = set(graph.order) | {(a, b) for a in producers for b in readers if a != b}
    backward = _made_from(graph, given)
    last = {storage: index for index, op in enumerate(graph.ops) for storage in op.reads}
    ops = list(graph.ops)
    for index, op in enumerate(ops):
        node = program.nodes[index]
        if op.reuse < 0 or op.reuse in backward or node is None:
            continue
        choice = reusable_inputs(node, program.storage_of, list(graph.storages))
        own = [s for s in choice if s in backward and last[s] == index and not graph.storages[s].output]
        if own:
            ops[index] = replace(op, reuse=own[0])
    return replace(graph, ops=tuple(ops), order=tuple(sorted(order)))


def _made_from(graph: Graph, given: set[int]) -> set[int]:
    """Storages made by ops that read one of ``given``, or a storage so made."""
    found = set(given)
    for op in graph.ops:
        if found & set(op.reads):
            found.update(op.writes)
    return found - given


def without_reuse(graph: Graph, indices: Collection[int] | None = None) -> Graph:
    """``graph`` where the ops of ``indices`` (default: all) never write over an input."""
    ops = (op if indices is not None and i not in indices else replace(op, reuse=-1) for i, op in enumerate(graph.ops))
    return replace(graph, ops=tuple(ops))


def crossing_reuse(graph: Graph, schedule: Sequence[int], cut: int) -> list[int]:
    """Positions after ``cut`` that count on taking over bytes of an instance made before it."""
    made: dict[int, int] = {}
    found = []
    for position, (index, reused) in enumerate(zip(schedule, lifetimes(graph, schedule).reused, strict=True)):
        if reused and made[graph.ops[index].reuse] < cut <= position:
            found.append(position)
        for storage in graph.ops[index].writes:
            made[storage] = position
    return found


def peak_in_halves(graph: Graph, schedule: Sequence[int], crossing: Sequence[int]) -> int:
    """The simulated peak where the positions ``crossing`` leave their inputs as they are."""
    during = simulate(graph, schedule).during.copy()
    for position in crossing:
        during[position] += graph.storages[graph.ops[schedule[position]].reuse].nbytes
    return int(during.max())


def cut_of(program: Program, schedule: Sequence[int], outputs: int) -> int:
    """Position in the schedule after which no forward output is missing."""
    graph = program.graph
    first = {index: position for position, index in reversed(list(enumerate(schedule)))}
    made = [
        graph.producer[program.storage_of[node]]
        for node in program.outputs[:outputs]
        if isinstance(node, fx.Node) and node in program.storage_of
    ]
    writers = [index for index, op in enumerate(graph.ops) if op.changes and op.phase == "forward"]
    return max((first[index] + 1 for index in (*made, *writers) if index >= 0), default=0)


class Half:
    """One of the two graphs, written op by op. ``env``: newest node here of each value of the joint graph."""

    def __init__(self, program: Program, again: Counter[int]) -> None:
        self.program, self.again = program, again
        self.graph = fx.Graph()
        self.env: dict[fx.Node, fx.Node] = {}
        self.views: dict[Any, fx.Node] = {}
        self.states: dict[int, fx.Node] = {}

    def placeholder(self, node: fx.Node) -> fx.Node:
        """An input that stands for a value of the joint graph."""
        made = self.graph.placeholder(node.name)
        made.meta = dict(node.meta)
        self.env[node] = made
        return made

    def value(self, node: fx.Node) -> fx.Node:
        """The newest instance of a value; a view is made from the newest instance of what it views.

        Raises:
            KeyError: it is not computed in this half; the key is the node that is missing.
        """
        if node.op == "get_attr" and node not in self.env:
            self.env[node] = self.graph.get_attr(str(node.target))
            self.env[node].meta = dict(node.meta)
        if node not in self.program.views:
            return self.env[node]
        inputs = tuple(self.value(n) for n in node.all_input_nodes)
        key = (node, inputs)
        if key not in self.views:
            self.views[key] = self.graph.node_copy(node, self.value)
        return self.views[key]

    def run(self, index: int, seen: bool, over: bool) -> None:
        """Write op ``index``; ``seen``: it ran before, in either half; ``over``: its reused input may be overwritten."""
        node = self.program.nodes[index]
        assert node is not None
        if str(node.target) in METADATA_ONLY:
            self.env[node] = self._filled(node)
            return
        absent = hidden_changes(node) if seen else ()
        args = tuple(None if i in absent else fx.node.map_arg(a, self.value) for i, a in enumerate(node.args))
        kwargs = fx.node.map_arg(node.kwargs, self.value)
        storage = self.program.graph.ops[index].reuse
        form = in_place_call(node, storage, self.program.storage_of) if over else None
        if form is not None:
            target, keyword, place = form
            if keyword != "self":
                kwargs = {**kwargs, keyword: args[place]}
            made = self.graph.call_function(target, args, kwargs)
        elif is_random(node) and self.again[index] > 1:
            device = next(v.device for v in pytree.tree_leaves(node.meta["val"]) if isinstance(v, torch.Tensor))
            if not seen:
                self.states[index] = self.graph.call_function(random_state, (device,))
                self.states[index].meta["val"] = torch.empty(STATE_BYTES, dtype=torch.uint8, device="meta")
                made = self.graph.call_function(node.target, args, kwargs)
            else:
                made = self.graph.call_function(replayed, (self.states[index], device, node.target, args, kwargs))
        else:
            made = self.graph.call_function(node.target, args, kwargs)
        made.meta = dict(node.meta)
        self.env[node] = made
        for item in node.users:
            if item.target is operator.getitem and item not in self.program.views and item in self.program.storage_of:
                self.env[item] = self.graph.call_function(operator.getitem, (made, item.args[1]))
                self.env[item].meta = dict(item.meta)

    def _filled(self, node: fx.Node) -> fx.Node:
        made, name = node.meta["val"], str(node.target).partition(".")[2]
        value: Any = 0 if "zeros" in name else 1 if "ones" in name else None
        if "full" in name:
            value = node.args[2 if name.startswith("new_full") else 1]
        new = self.graph.call_function(
            filled, (tuple(made.shape), tuple(made.stride()), made.dtype, made.device, value)
        )
        new.meta = dict(node.meta)
        return new


def halves_of(
    program: Program, schedule: Sequence[int], outputs: int, primals: Sequence[fx.Node], tangents: Sequence[fx.Node],
) -> tuple[fx.GraphModule, fx.GraphModule]:  # fmt: skip
    """Forward and backward modules that together run ``schedule``.

    Args:
        program: of the joint graph.
        schedule: op indices, with repetitions.
        outputs: how many of the joint graph's outputs are forward's; the rest are gradients.
        primals: placeholders of forward, in order.
        tangents: placeholders of backward after the saved values, in order.
    """
    cut = cut_of(program, schedule, outputs)
    again = Counter(schedule)
    forward, backward = Half(program, again), Half(program, again)
    over = list(lifetimes(program.graph, schedule).reused)
    for position in crossing_reuse(program.graph, schedule, cut):
        over[position] = False
    for node in primals:
        forward.placeholder(node)
    seen: set[int] = set()
    for position, index in enumerate(schedule[:cut]):
        forward.run(index, index in seen, over[position])
        seen.add(index)
    # what the rest reads before it makes it: one dry run of the backward half tells
    saved, states = _missing(program, schedule[cut:], tangents, outputs, set(seen), again)
    saved.sort(key=lambda node: bool(node.meta.get("saved_tensor_with_no_vc_check")))
    state_inputs: dict[int, fx.Node] = {}
    crossing: list[fx.Node] = [forward.value(node) for node in saved]
    for node in saved:
        backward.placeholder(node)
    for index in states:
        crossing.append(forward.states[index])
        state_inputs[index] = backward.graph.placeholder(f"random_state_{index}")
        state_inputs[index].meta["val"] = forward.states[index].meta["val"]
    backward.states.update(state_inputs)
    for node in tangents:
        backward.placeholder(node)
    for position, index in enumerate(schedule[cut:], cut):
        backward.run(index, index in seen, over[position])
        seen.add(index)
    output = next(n for n in program.module.graph.nodes if n.op == "output")
    descriptions = list(output.meta.get("desc", [None] * len(program.outputs)))
    first = [_output(forward, node) for node in program.outputs[:outputs]]
    made = forward.graph.output((*first, *crossing))
    made.meta["desc"] = [*descriptions[:outputs], *_saved_descriptions(len(crossing))]
    made = backward.graph.output(tuple(_output(backward, node) for node in program.outputs[outputs:]))
    made.meta["desc"] = descriptions[outputs:]
    return _module(program, forward, "forward"), _module(program, backward, "backward")


def _output(half: Half, node: Any) -> Any:
    return half.value(node) if isinstance(node, fx.Node) else node


def _module(program: Program, half: Half, name: str) -> fx.GraphModule:
    half.graph.lint()
    return fx.GraphModule(program.module, half.graph, class_name=f"memfit_{name}")


def _saved_descriptions(count: int) -> list[Any]:
    from torch._functorch._aot_autograd.descriptors import SavedForBackwardsAOTOutput

    return [SavedForBackwardsAOTOutput(i) for i in range(count)]


def _missing(
    program: Program,
    rest: Sequence[int],
    tangents: Sequence[fx.Node],
    outputs: int,
    seen: set[int],
    again: Counter[int],
) -> tuple[list[fx.Node], list[int]]:
    """Values and generator states that the backward half must be given, in the order of first use."""
    needed: dict[fx.Node, None] = {}
    states: dict[int, None] = {}
    made: set[fx.Node] = set(tangents)

    def read(node: fx.Node) -> None:
        if node in program.views:
            for source in node.all_input_nodes:
                read(source)
        elif node.op != "get_attr" and node not in made:
            needed[node] = None

    for index in rest:
        node = program.nodes[index]
        assert node is not None
        if str(node.target) not in METADATA_ONLY:
            for source in node.all_input_nodes:
                read(source)
        if is_random(node) and again[index] > 1 and index in seen:
            states[index] = None
        made.add(node)
        made.update(item for item in node.users if item.target is operator.getitem)
    for node in program.outputs[outputs:]:
        if isinstance(node, fx.Node):
            read(node)
    return list(needed), list(states)
