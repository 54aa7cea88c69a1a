"""Compute one value of a half-recorded trace for real: the ops that lead to it, each freed after its last use.

A trace is recorded on fake tensors, before anything ran. What a program looks at is worth computing: the nodes that the
value depends on run on the step's real parameters, buffers and inputs, below autograd, in the trace's order. Ops that
change a tensor take part where a value that is needed lies in that tensor's storage; what they change of the step's own
is a copy. Random ops draw what the step would draw: where one takes part, those before it do, from the same state.

Cost: one forward pass up to the value, at most, per value; memory that of the widest op and what is alive around it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import _disable_current_modes

from memfit.errors import CaptureError
from memfit.frameworks.torch.program import hidden_changes, is_random, reads_only_shape

MOST_SECONDS = 120.0
_DRAWS, _DRAW_SECONDS = 64, 0.05
_SHAPE_LIKE = frozenset({"aten.rand_like.default", "aten.randn_like.default"})


class PartRun:
    """Values of a trace over ``placeholders``, the real tensors of its inputs in order.

    Args:
        placeholders: tensors that stand for the trace's placeholders; not changed.
        state: the random state that the step starts from.
    """

    def __init__(self, placeholders: Sequence[torch.Tensor], state: torch.Tensor) -> None:
        self.placeholders, self.state = placeholders, state
        self.root: Any = None
        self.seconds = 0.0

    def value(self, node: fx.Node, root: Any) -> tuple[Any, list[Any]]:
        """The value that ``node`` has in the step, as plain Python, and those that other random numbers would give it.

        ``root`` holds the trace's constants. The others, two to 64, come from the same states for every node; none where
        no random number takes part.

        Raises:
            CaptureError: the program looks at so many values that computing them takes over ``MOST_SECONDS``.
        """
        if self.seconds > MOST_SECONDS:
            raise CaptureError("it looks at too many tensor values to compute them one by one")
        start, self.root = time.process_time(), root
        order = _leading_to(node)
        try:
            with unset_fake_temporarily(), _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
                found = _plain(self._run(order, node, self.state))
                return found, self._others(order, node) if any(is_random(other) for other in order) else []
        finally:
            self.seconds += time.process_time() - start

    def _others(self, order: list[fx.Node], node: fx.Node) -> list[Any]:
        found: list[Any] = []
        start = time.process_time()
        while len(found) < _DRAWS and (len(found) < 2 or time.process_time() - start < _DRAW_SECONDS):
            state = torch.Generator().manual_seed(len(found) + 1).get_state()
            found.append(_plain(self._run(order, node, state)))
        return found

    def _run(self, order: list[fx.Node], wanted: fx.Node, state: torch.Tensor) -> torch.Tensor:
        places = {node: i for i, node in enumerate(_placeholders(wanted.graph))}
        changed = _changed_storages(order)
        last = {source: index for index, node in enumerate(order) for source in node.all_input_nodes}
        values: dict[fx.Node, Any] = {}
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(state)
        try:
            for index, node in enumerate(order):
                values[node] = self._one(node, values, places, changed)
                for source in node.all_input_nodes:
                    if last[source] == index and source is not wanted:
                        values.pop(source, None)
            result = values[wanted]
        finally:
            torch.default_generator.set_state(before)
        assert isinstance(result, torch.Tensor)
        return result

    def _one(self, node: fx.Node, values: dict[fx.Node, Any], places: dict[fx.Node, int], changed: set[int]) -> Any:
        if node.op == "placeholder":
            given = self.placeholders[places[node]].detach()
            return given.clone() if _storage(node) in changed else given
        if node.op == "get_attr":
            made = self.root
            for part in str(node.target).split("."):
                made = getattr(made, part)
            return made.clone() if isinstance(made, torch.Tensor) else made
        if _shape_only(node):
            return _filled(node, node.meta["val"])

        def read(source: fx.Node) -> Any:
            return values[source] if source in values else _empty(source)

        args = fx.node.map_arg(node.args, read)
        kwargs = fx.node.map_arg(node.kwargs, read)
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _plain(value: torch.Tensor) -> Any:
    return value.item() if value.dim() == 0 else value.tolist()


def _placeholders(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _storage(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else 0


def _written(node: fx.Node) -> list[fx.Node]:
    found = [node.args[i] for i in hidden_changes(node) if isinstance(node.args[i], fx.Node)]
    schema = getattr(node.target, "_schema", None)
    for place, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            if isinstance(value, fx.Node):
                found.append(value)
    return found  # type: ignore[return-value]


def _changed_storages(order: list[fx.Node]) -> set[int]:
    return {_storage(target) for node in order if node.op == "call_function" for target in _written(node)}


def _shape_only(node: fx.Node) -> bool:
    return reads_only_shape(node) and not is_random(node)


def _sources(node: fx.Node) -> list[fx.Node]:
    if _shape_only(node) or str(node.target) in _SHAPE_LIKE:
        return [source for source in node.all_input_nodes if source is not node.args[0]]
    return node.all_input_nodes


def _leading_to(wanted: fx.Node) -> list[fx.Node]:
    """The nodes that must run, in order."""
    nodes = list(wanted.graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    calls = [node for node in nodes if node.op == "call_function"]
    writers = [(node, {_storage(target) for target in _written(node)}) for node in calls]
    writers = [(node, storages) for node, storages in writers if storages]
    draws = [node for node in calls if is_random(node)]
    needed: set[fx.Node] = set()
    stack = [wanted]
    while stack:
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(_sources(node))
        lying = {_storage(node) for node in needed} - {0}
        end = position[wanted]
        stack += [n for n, storages in writers if n not in needed and storages & lying and position[n] < end]
        newest = max((position[node] for node in draws if node in needed), default=-1)
        stack += [node for node in draws if node not in needed and position[node] < newest]
    return sorted(needed, key=lambda node: position[node])


def _empty(source: fx.Node) -> Any:
    value = source.meta["val"]
    return torch.empty_strided(tuple(value.shape), tuple(value.stride()), dtype=value.dtype)


def _filled(node: fx.Node, like: torch.Tensor) -> torch.Tensor:
    made = torch.empty_strided(tuple(like.shape), tuple(like.stride()), dtype=like.dtype, device=like.device)
    name = str(node.target).partition(".")[2]
    if "zeros" in name:
        return made.zero_()
    if "ones" in name:
        return made.fill_(1)
    if "full" in name:
        return made.fill_(node.args[2 if name.startswith("new_full") else 1])  # type: ignore[arg-type]
    return made
