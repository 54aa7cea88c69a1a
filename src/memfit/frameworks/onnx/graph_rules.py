"""What the graph of an ONNX file must keep beside what ``onnx.checker`` looks at, each breach said in one sentence.

Every name is made once and is there to be read, also inside bodies; nothing waits for itself; branches and loops hand over as
many values as they take; tensors hold as many bytes as their shape says. The checker stops at a wrong order of nodes, which
is put right here, and so never sees what comes after it. Cost: O(nodes + reads).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from memfit.errors import TargetError
from memfit.ir.program import BITS

_AGAIN = "export it again"


def check_graph(graph: Any, target: str, around: frozenset[str] = frozenset()) -> None:
    """Raise where ``graph``, or a body inside it, breaks a rule.

    Args:
        graph: a GraphProto.
        target: what the message calls the model.
        around: names that the graphs around this one make.

    Raises:
        TargetError: which rule, where.
    """
    made: set[str] = set()
    if any(not isinstance(name, str) for name in _names(graph)):
        raise TargetError(target, "a name in it is no text", _AGAIN)
    for node in graph.node:
        for name in filter(None, node.output):
            if name in made:
                raise TargetError(target, f"two of its operations make {name!r}", _AGAIN)
            made.add(name)
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    known = around | made | given
    for node in graph.node:
        what = f"its operation {node.op_type} {node.name!r}".removesuffix(" ''")
        missing = [name for name in node.input if name and name not in known]
        if missing:
            raise TargetError(target, f"{what} reads {missing[0]!r}, which nothing makes", _AGAIN)
        bodies = {attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")}
        why = _wrong_bodies(node, bodies)
        if why:
            raise TargetError(target, f"{what} {why}", _AGAIN)
        for body in bodies.values():
            check_graph(body, target, frozenset(known))
    unmade = [value.name for value in graph.output if value.name not in known]
    if unmade:
        raise TargetError(target, f"its output {unmade[0]!r} is made by nothing", _AGAIN)
    try:
        sorted_nodes(graph)
    except ValueError as error:
        raise TargetError(target, f"its graph is cyclic: these nodes wait for each other: {error}", _AGAIN) from error


def _names(graph: Any) -> Iterator[Any]:
    """Every name in a graph, those of bodies left out; bytes where one is no UTF-8."""
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name


def _wrong_bodies(node: Any, bodies: dict[str, Any]) -> str:
    """What is wrong with the bodies of a branch or loop of ONNX's own; '' where nothing is."""
    if node.domain not in ("", "ai.onnx"):
        return ""
    if node.op_type == "If":
        for name in ("then_branch", "else_branch"):
            if name not in bodies:
                return f"has no {name}"
            if len(bodies[name].output) != len(node.output):
                return f"has {len(node.output)} results and a {name} of {len(bodies[name].output)}"
    if node.op_type == "Loop":
        if "body" not in bodies:
            return "has no body"
        takes, gives = len(bodies["body"].input), len(bodies["body"].output)
        if takes != max(2, len(node.input)) or gives != len(node.output) + 1:
            return f"has {len(node.input)} inputs, {len(node.output)} results and a body from {takes} values to {gives}"
    if node.op_type == "Scan" and "body" not in bodies:
        return "has no body"
    return ""


def check_bytes(tensor: Any, dtype: str, nbytes: int, target: str) -> None:
    """Raise where a tensor with plain bytes holds another number of them than its shape says.

    Raises:
        TargetError: it does, or its element type is none.
    """
    if dtype == "undefined":
        raise TargetError(
            target, f"its tensor {tensor.name!r} is of the element type {tensor.data_type}, which is none"
        )
    wanted = stored_bytes(tensor, dtype)
    if wanted != nbytes:
        shape = list(tensor.dims)
        raise TargetError(
            target, f"its tensor {tensor.name!r}, {dtype}{shape}, takes {wanted} bytes, and there are {nbytes}", _AGAIN
        )  # fmt: skip


def stored_bytes(tensor: Any, dtype: str) -> int:
    """Bytes that a tensor takes in a file, those of a half-filled last one included."""
    return -(-math.prod(tensor.dims) * BITS.get(dtype, 32) // 8)


def sorted_nodes(graph: Any) -> list[Any]:
    """The nodes of a graph in an order in which each is after what it reads; the given one where it is such.

    Raises:
        ValueError: nodes wait for each other; the text names some.
    """
    made_by = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waits = [{made_by[name] for name in _reads(node) if name in made_by} for node in graph.node]
    if all(other < index for index, others in enumerate(waits) for other in others):
        return list(graph.node)
    order: list[int] = []
    readers: list[list[int]] = [[] for _ in waits]
    for index, others in enumerate(waits):
        for other in others:
            readers[other].append(index)
    left = [len(others) for others in waits]
    ready = [index for index, count in enumerate(left) if count == 0]
    while ready:
        index = ready.pop()
        order.append(index)
        for reader in readers[index]:
            left[reader] -= 1
            if left[reader] == 0:
                ready.append(reader)
    if len(order) < len(waits):
        stuck = [graph.node[index].name or graph.node[index].op_type for index, count in enumerate(left) if count]
        raise ValueError(", ".join(stuck[:4]))
    return [graph.node[index] for index in order]


def _reads(node: Any) -> Iterator[str]:
    yield from filter(None, node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _reads(inner)
            yield from (output.name for output in attribute.g.output)
