"""From a functional FX graph to the planner's Graph, and back from op indices to FX nodes.

Values that view one storage are folded onto it: a view is made anew wherever it is read and costs nothing. Ops that the
planner sees are the FX calls that create storage or change a constant, then one op per trained parameter for its
optimizer step (reads the gradient, changes the parameter), so that a gradient can die as soon as it is used.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch.fx import Node

from memfit.errors import CaptureError
from memfit.frameworks.torch import random_ops
from memfit.frameworks.torch.batch_norm import can_split
from memfit.frameworks.torch.inplace import reusable_inputs
from memfit.ir.graph import Graph, Op, Storage
from memfit.passes.offload import idle_storages, offload

# Ops that change an argument although their schema does not say so: positions of what they change, and the position of
# the flag that says whether they do. Run again, they get None there: in training the result does not depend on it.
HIDDEN_CHANGES = {"aten.native_batch_norm.default": ((3, 4), 5)}

READING = "memfit.reading"

# Ops that look at the shape of their first argument, never at its bytes.
METADATA_ONLY = {
    "aten.empty_like.default", "aten.zeros_like.default", "aten.ones_like.default", "aten.full_like.default",
    "aten.new_empty.default", "aten.new_zeros.default", "aten.new_ones.default", "aten.new_full.default",
    "aten.new_empty_strided.default",
}  # fmt: skip


def reads_only_shape(node: Node) -> bool:
    """Whether ``node`` never reads the bytes of its first argument."""
    return str(node.target) in METADATA_ONLY or str(node.target) in random_ops.NAMES


def hidden_changes(node: Node) -> tuple[int, ...]:
    """Argument positions that ``node`` changes although its schema does not say so."""
    places, flag = HIDDEN_CHANGES.get(str(node.target), ((), -1))
    return places if flag >= 0 and flag < len(node.args) and node.args[flag] is True else ()


@dataclass
class Program:
    """A Graph and what its indices mean in the FX graph.

    ``nodes[i]``: the FX node of op ``i``, or None for an optimizer op; ``parameter[i]``: for those, the position of the
    parameter among the placeholders. ``halves[i]``: which half of its node op ``i`` is, statistics or normalise (see
    ``batch_norm``). ``loaded``: storage that comes back from slow memory -> the storage it was.
    ``storage_of``: value node -> storage. ``views``: nodes made anew where read. ``readings``: ops that look at a value -> the
    node of that value, in order (see ``outcomes``).
    """

    module: torch.fx.GraphModule
    graph: Graph
    nodes: list[Node | None]
    parameter: dict[int, int]
    storage_of: dict[Node, int]
    views: set[Node]
    outputs: list[Any]
    gradient_nodes: dict[int, Node] = field(default_factory=dict)
    halves: dict[int, str] = field(default_factory=dict)
    loaded: dict[int, int] = field(default_factory=dict)
    readings: dict[int, Node] = field(default_factory=dict)


def is_random(node: Node) -> bool:
    """Whether the node draws from a random number generator."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags


def program_of(
    module: torch.fx.GraphModule, names: tuple[str, ...] = (), *, optimizer: tuple[int, ...] = (), first_gradient: int = 1,
    split: Callable[[Node], bool] = lambda node: False, readings: int = 0,
) -> Program:  # fmt: skip
    """The Program of a functional FX graph whose nodes carry fake tensors in ``meta["val"]``.

    Args:
        module: placeholders are constants; calls are ATen ops.
        names: labels of the placeholders.
        optimizer: placeholder positions of parameters that an optimizer steps; output ``first_gradient + i`` is the
            gradient of ``optimizer[i]``'s parameter counted by placeholder position.
        first_gradient: index of the first gradient among the outputs.
        split: whether a batch norm may be split in halves.
        readings: how many of the last outputs are only looked at: nothing that the step leaves behind, optimizer steps
            and changed buffers, comes before the last look, where the program's own order has it so.

    Raises:
        CaptureError: an op that cannot be planned (a sparse or nested value, a value that is half a view).
    """
    builder = _Builder(module, names, split, readings)
    for node in module.graph.nodes:
        builder.add(node)
    return builder.finish(optimizer, first_gradient)


class _Builder:
    def __init__(
        self, module: torch.fx.GraphModule, names: tuple[str, ...], split: Callable[[Node], bool], looks: int
    ) -> None:
        self.module, self.names, self.split, self.looks = module, names, split, looks
        given = [leaf for node in module.graph.nodes if node.op == "output" for leaf in _flat_outputs(node)]
        self.looked_at = set(given[len(given) - looks :]) if looks else set()
        self.readings: dict[int, Node] = {}
        self.halves: dict[int, str] = {}
        self.storages: list[Storage] = []
        self.key_to_storage: dict[int, int] = {}
        self.keep: list[Any] = []
        self.storage_of: dict[Node, int] = {}
        self.views: set[Node] = set()
        self.ops: list[Op] = []
        self.nodes: list[Node | None] = []
        self.readers: dict[int, list[int]] = {}
        self.changers: list[tuple[int, int]] = []
        self.chain: list[int] = []
        self.placeholders: list[Node] = []
        self.outputs: list[Any] = []
        self.backward_from: Node | None = None
        self.live = _needed(module.graph)
        self.reuse: dict[int, tuple[int, ...]] = {}

    def add(self, node: Node) -> None:
        if node.op == "placeholder":
            label = self.names[len(self.placeholders)] if len(self.placeholders) < len(self.names) else node.name
            self.placeholders.append(node)
            self._constant(node, node.meta.get("val"), label)
        elif node.op == "get_attr":
            value = node.meta.get("val")
            self._constant(
                node, value if value is not None else _attribute(self.module, str(node.target)), str(node.target)
            )
        elif node.op == "output":
            self.outputs = list(_flat_outputs(node))[: -self.looks or None]
        elif node in self.live:
            self._call(node)
        if node in self.looked_at:
            self._look(node)

    def _constant(self, node: Node, value: Any, label: str) -> None:
        if isinstance(value, torch.Tensor):
            self.storage_of[node] = self._storage(value, constant=True, label=label)

    def _storage(self, value: torch.Tensor, *, constant: bool = False, label: str = "") -> int:
        try:
            raw = value.untyped_storage()
        except (NotImplementedError, RuntimeError) as error:
            raise CaptureError(f"a value has no plain storage ({value.layout})") from error
        key = raw._cdata
        if key not in self.key_to_storage:
            self.keep.append(raw)
            self.key_to_storage[key] = len(self.storages)
            self.storages.append(Storage(raw.nbytes(), constant=constant, label=label))
        return self.key_to_storage[key]

    def _call(self, node: Node) -> None:
        value = node.meta.get("val")
        if node.target is operator.getitem:
            if isinstance(value, torch.Tensor):
                self.storage_of[node] = self._storage(value)
                if node.args[0] in self.views:
                    self.views.add(node)
            return
        results = [v for v in _flatten(value) if isinstance(v, torch.Tensor)]
        reads = _unique(self.storage_of[n] for n in node.all_input_nodes if n in self.storage_of)
        if reads_only_shape(node):
            first = self.storage_of.get(node.args[0], -1)
            others = {
                self.storage_of[n] for n in node.all_input_nodes if n is not node.args[0] and n in self.storage_of
            }
            reads = tuple(s for s in reads if s != first or s in others)
        multiple = [n for n in node.all_input_nodes if n not in self.storage_of and n in self.views]
        if multiple:
            raise CaptureError(f"op {node.target} takes a list of views whole")
        changes = self._changes(node)
        existing = [r.untyped_storage()._cdata in self.key_to_storage for r in results]
        if results and all(existing) and not changes:
            self.views.add(node)
            if isinstance(value, torch.Tensor):
                self.storage_of[node] = self._storage(value)
            return
        if any(existing) and not changes:
            raise CaptureError(f"op {node.target} returns both new memory and a view")
        index = len(self.ops)
        writes = () if changes and all(existing) else _unique(self._storage(r) for r in results)
        if isinstance(value, torch.Tensor):
            self.storage_of[node] = self._storage(value)
        hidden = {self.storage_of[n] for n in self._hidden(node)}
        reads = tuple(s for s in reads if s not in hidden and s not in changes)
        for storage in reads:
            self.readers.setdefault(storage, []).append(index)
        for storage in changes:
            self.changers.append((index, storage))
        if is_random(node) or hidden:
            self.chain.append(index)
        if can_split(node) and self.split(node):
            self._halves(node, reads, writes, tuple(changes) + tuple(hidden))
            return
        self.ops.append(
            Op(str(node.target), reads, writes, tuple(changes) + tuple(hidden), repeatable=not changes, label=node.name)
        )
        self.reuse[index] = reusable_inputs(node, self.storage_of, self.storages)
        self.nodes.append(node)

    def _halves(self, node: Node, reads: tuple[int, ...], writes: tuple[int, ...], changes: tuple[int, ...]) -> None:
        index = len(self.ops)
        whole, small = writes[:1], writes[1:]
        self.ops.append(Op(f"{node.target} statistics", reads[:1], small, changes, label=node.name))
        self.ops.append(Op(f"{node.target} normalise", _unique((*reads, *small)), whole, label=node.name))
        for storage in self.ops[-1].reads:
            self.readers.setdefault(storage, []).append(index + 1)
        self.readers[reads[0]] = sorted(set(self.readers[reads[0]]) | {index})
        for storage in reads[1:]:
            self.readers[storage].remove(index)
        self.nodes += [node, node]
        self.halves[index], self.halves[index + 1] = "statistics", "normalise"

    def _hidden(self, node: Node) -> list[Node]:
        places = hidden_changes(node)
        return [node.args[i] for i in places if i < len(node.args) and isinstance(node.args[i], Node)]

    def _changes(self, node: Node) -> list[int]:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return []
        changed = []
        for place, argument in enumerate(schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
                if isinstance(value, Node) and value in self.storage_of:
                    changed.append(self.storage_of[value])
        return changed

    def finish(self, optimizer: tuple[int, ...], first_gradient: int) -> Program:
        constants = {index for index, storage in enumerate(self.storages) if storage.constant}
        for index, storage in self.changers:
            if storage not in constants:
                raise CaptureError(f"op {self.ops[index].name} changes an intermediate in place")
        loss = self.outputs[0] if self.outputs and isinstance(self.outputs[0], Node) else None
        parameter: dict[int, int] = {}
        gradient_nodes: dict[int, Node] = {}
        self._phases(loss, bool(optimizer) or len(self.outputs) > 1)
        consumed = set()
        for place in optimizer:
            gradient = self.outputs[first_gradient + place]
            if not isinstance(gradient, Node):
                continue
            consumed.add(first_gradient + place)
            index = len(self.ops)
            storage = self.storage_of[gradient]
            target = self.storage_of[self.placeholders[place]]
            self.ops.append(
                Op("memfit.optimizer_step", (storage,), (), (target,), phase="optimizer", repeatable=False,
                   label=self.storages[target].label)
            )  # fmt: skip
            self.nodes.append(None)
            self.readers.setdefault(storage, []).append(index)
            self.changers.append((index, target))
            parameter[index] = place
            gradient_nodes[index] = gradient
        kept = {
            self.storage_of[node]
            for place, node in enumerate(self.outputs)
            if isinstance(node, Node) and place not in consumed and node in self.storage_of
        }
        storages = [
            Storage(s.nbytes, s.constant, not s.constant and i in kept, s.label) for i, s in enumerate(self.storages)
        ]
        last_reader = {storage: max(readers) for storage, readers in self.readers.items()}
        for index, candidates in self.reuse.items():
            dying = [s for s in candidates if last_reader.get(s) == index and s not in kept]
            for storage in (dying or [s for s in candidates if s not in kept])[:1]:
                self.ops[index] = replace(self.ops[index], reuse=storage)
        order = {(a, b) for b, s in self.changers for a in self.readers.get(s, ()) if a != b}
        order |= {(a, b) for a, s in self.changers for b, t in self.changers if s == t and a < b}
        order |= self._after_readings()
        graph = Graph(tuple(self.ops), tuple(storages), tuple(sorted(order)), tuple(self.chain))
        return Program(
            self.module, graph, self.nodes, parameter, self.storage_of, self.views, self.outputs, gradient_nodes,
            self.halves, readings=self.readings,
        )  # fmt: skip

    def _look(self, node: Node) -> None:
        """An op that looks at the value of ``node``, right where the program does."""
        index, storage = len(self.ops), self.storage_of[node]
        self.ops.append(Op(READING, (storage,), (), repeatable=False, label=node.name))
        self.nodes.append(None)
        self.readers.setdefault(storage, []).append(index)
        self.readings[index] = node

    def _after_readings(self) -> set[tuple[int, int]]:
        """Looks keep their order; what changes the step's own state after some in the program's order stays after them."""
        looks = list(self.readings)
        edges = set(pairwise(looks))
        for index, op in enumerate(self.ops):
            before = [look for look in looks if look < index]
            if op.changes and before:
                edges.add((before[-1], index))
        return edges

    def _phases(self, loss: Node | None, training: bool) -> None:
        if not training or loss is None:
            return
        position = {node: i for i, node in enumerate(self.module.graph.nodes)}
        boundary = _loss_position(loss, position)
        for i, node in enumerate(self.nodes):
            node = self.readings.get(i, node)
            if node is not None and position[node] > boundary:
                self.ops[i] = replace(self.ops[i], phase="backward")


def _loss_position(loss: Node, position: dict[Node, int]) -> int:
    while loss.op == "call_function" and str(loss.target) in ("aten.detach.default", "aten.alias.default"):
        loss = loss.args[0]  # type: ignore[assignment]
    return position[loss]


def _needed(graph: torch.fx.Graph) -> set[Node]:
    needed: set[Node] = set()
    stack = [n for n in graph.nodes if n.op == "output" or is_random(n) or _writes(n)]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(n for n in node.all_input_nodes if n is not node.args[0] or not reads_only_shape(node))
    return needed | {
        n for n in graph.nodes if n.target is operator.getitem and n.args[0] in needed and n.users and n in needed
    }


def _writes(node: Node) -> bool:
    if hidden_changes(node):
        return True
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)


def _attribute(module: torch.fx.GraphModule, path: str) -> Any:
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _flatten(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in _flatten(item)]
    return [value]


def _flat_outputs(node: Node) -> list[Any]:
    return _flatten(node.args[0])


def _unique(items: Any) -> tuple[int, ...]:
    return tuple(dict.fromkeys(items))


def offloaded(program: Program, storages: list[int], bytes_per_second: float) -> Program:
    """``program`` with ``storages`` (each the storage of one value) moved to slow memory between forward and backward."""
    graph = offload(program.graph, storages, bytes_per_second)
    if graph is program.graph:
        return program
    place = graph.meta["place"]
    nodes: list[Node | None] = [None] * len(graph.ops)
    for index, node in enumerate(program.nodes):
        nodes[place[index]] = node
    first = len(program.graph.storages)
    return replace(
        program, graph=graph, nodes=nodes, parameter={place[i]: v for i, v in program.parameter.items()},
        gradient_nodes={place[i]: v for i, v in program.gradient_nodes.items()},
        halves={place[i]: v for i, v in program.halves.items()},
        readings={place[i]: v for i, v in program.readings.items()},
        loaded={first + i: storage for i, storage in enumerate(storages)},
    )  # fmt: skip


def movable(program: Program) -> list[int]:
    """Idle storages that one whole value stands for, in the order in which to move them."""
    values: dict[int, list[Node]] = {}
    for node, storage in program.storage_of.items():
        if node not in program.views:
            values.setdefault(storage, []).append(node)
    return [s for s in idle_storages(program.graph) if len(values.get(s, ())) == 1]
