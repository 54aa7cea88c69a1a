"""A concrete function -> Program: calls inlined, bodies of loops and branches kept, variables constants by reference.

    Conv2D, MatMul, ...                       one operation each, ``tf.<operator>``, attributes as TensorFlow's own messages
    PartitionedCall, StatefulPartitionedCall  inlined: they change nothing about memory
    While, If, Case (stateful or not)         operations with bodies; a body's arguments are explicit
    a variable that nothing assigns           a constant: reading it is no operation, as when a graph is frozen
    a variable that is assigned               a constant for what it holds, read and written through its handle

Sizes are found afterwards (``sizes``). Cost: about 20 us an operation, and hashing every weight once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph

from memfit.errors import TargetError
from memfit.frameworks.tensorflow.values import Values, dtype_name
from memfit.ir.program import Constant, Operation, Program, Type

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
LOOPS = ("While", "StatelessWhile")
_TWO = ("then_branch", "else_branch")
BRANCHES = {"If": _TWO, "StatelessIf": _TWO, "Case": ("branches",), "StatelessCase": ("branches",)}
_DROPPED = frozenset((
    "_output_shapes", "_class", "_XlaHasReferenceVars", "_read_only_resource_inputs", "_gradient_op_type", "config",
    "config_proto", "executor_type", "_lower_using_switch_merge", "_num_original_outputs",
))  # fmt: skip
_HANDS_ON = ("Identity", "TensorListSetItem", "TensorListPushBack", "TensorListPopBack", "TensorListResize")
_WRITES = (
    "Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter", "ResourceStridedSliceAssign", "RngReadAndSkip",
    "RngSkip", "StatefulUniform", "StatefulStandardNormal", "StatefulRandom", "StatefulTruncated",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """An attribute as TensorFlow's serialised AttrValue."""

    data: bytes

    def __repr__(self) -> str:
        return f"<{len(self.data)} bytes>"

    @property
    def value(self) -> Any:
        """The AttrValue."""
        from tensorflow.core.framework import attr_value_pb2

        return attr_value_pb2.AttrValue.FromString(self.data)


@dataclass(frozen=True)
class Captured:
    """``program`` (untyped until ``sizes``), the values behind it, the form of arguments and results, and ``function``,
    which was captured."""

    program: Program
    values: Values
    structured_inputs: Any
    structured_outputs: Any
    function: Any
    names: dict[str, str] = field(default_factory=dict)


def capture(function: Any, name: str = "") -> Captured:
    """The Program of a ``ConcreteFunction``, with types only of inputs and constants; see ``sizes.with_sizes``.

    Raises:
        TargetError: it calls a function that its graph does not hold, or loops in the form of TensorFlow 1.
    """
    graph = function.graph
    writer = _Writer(graph, name or "function", _assigned(graph))
    captures = dict(zip((_key(t) for t in graph.internal_captures), function.captured_inputs, strict=True))
    known: dict[Any, str] = {}
    inputs = []
    level = _Level(writer)
    for tensor in function.inputs:
        outside = captures.get(_key(tensor))
        if outside is None:
            own = writer.name(tensor.op.name)
            inputs.append(own)
            level.types[own] = Type(dtype_name(tensor.dtype), _shape(tensor))
            known[_key(tensor)] = own
        else:
            known[_key(tensor)] = level.captured(tensor, outside)
    level.operations_of(graph, known)
    outputs = []
    for tensor in function.outputs:
        outputs.append(level.read(tensor))
    program = Program(
        tuple(inputs), tuple(outputs), tuple(level.operations), level.types, level.constants, name or "function",
        {"labels": {own: own for own in inputs}, "categories": dict(writer.categories)},
    )  # fmt: skip
    return Captured(program, writer.values, function.structured_input_signature, function.structured_outputs, function)


def _shape(tensor: Any) -> Any:
    return None if tensor.shape.rank is None else tuple(-1 if size is None else size for size in tensor.shape.as_list())


def _passed_on(body: Program) -> list[int]:
    """Positions at which a turn of a loop hands on what it was given: as it is, or a list with something put in."""
    same = {name: name for name in body.inputs}
    for operation in body.operations:
        if operation.kind.partition(".")[2] in _HANDS_ON and operation.inputs[0] in same:
            same[operation.outputs[0]] = same[operation.inputs[0]]
    return [i for i, (one, other) in enumerate(zip(body.inputs, body.outputs, strict=True)) if same.get(other) == one]


def _attribute(dtype: Any) -> bytes:
    from tensorflow.core.framework import attr_value_pb2

    data: bytes = attr_value_pb2.AttrValue(type=dtype.as_datatype_enum).SerializeToString(deterministic=True)
    return data


def _key(tensor: Any) -> Any:
    """What tells a tensor from others; the objects themselves are made anew at each look."""
    return id(tensor.graph), tensor.name


def _in_order(graph: Any, target: str) -> list[Any]:
    """Operations, each after what it reads and waits for: a loop that is differentiated gets inputs made after it.

    Raises:
        TargetError: one waits for itself, as in the loops of TensorFlow 1 (Enter, Merge, NextIteration).
    """
    done: set[str] = set()
    begun: set[str] = set()
    found: list[Any] = []
    for last in graph.get_operations():
        waiting = [last]
        while waiting:
            op = waiting[-1]
            if op.name in done:
                waiting.pop()
                continue
            before = [t.op for t in op.inputs] + list(op.control_inputs)
            missing = [b for b in before if b.name not in done]
            if missing and op.name in begun:  # still on the way: what it waits for led back here
                raise TargetError(
                    target, f"its operation {op.name!r} ({op.type}) waits for itself: a loop in the form of TensorFlow 1",
                    "save it with control flow of version 2 (tf.while_loop in a tf.function; lower_control_flow=False)",
                )  # fmt: skip
            if missing:
                begun.add(op.name)
                waiting.extend(reversed(missing))
                continue
            done.add(op.name)
            found.append(op)
            waiting.pop()
    return found


def _assigned(graph: Any) -> bool:
    """Whether anything in a graph, or in the functions that it holds, writes to a resource."""
    definitions = graph.as_graph_def(add_shapes=False)
    nodes = [*definitions.node, *(node for f in definitions.library.function for node in f.node_def)]
    return any(node.op.startswith(_WRITES) for node in nodes)


class _Writer:
    """Names, values and functions of one whole program."""

    def __init__(self, graph: Any, target: str, assigns: bool) -> None:
        self.graph, self.target, self.assigns = graph, target, assigns
        self.values = Values()
        self.categories: dict[str, str] = {}
        self._names: set[str] = set()
        self._graphs: dict[str, Any] = {}

    def name(self, like: str) -> str:
        """A name that no value has yet."""
        name, count = like, 1
        while name in self._names:
            count += 1
            name = f"{like}#{count}"
        self._names.add(name)
        return name

    def body(self, name: str) -> Any:
        """The graph of a function in the library."""
        if name not in self._graphs:
            found = self.graph._get_function(name)
            if found is None:
                raise TargetError(self.target, f"it calls the function {name!r}, which it does not hold")
            with self.graph.as_default():
                self._graphs[name] = function_def_to_graph.function_def_to_graph(found.cached_definition)
        return self._graphs[name]


class _Level:
    """One program while it is written. ``known``: key of a tensor -> its name here."""

    def __init__(self, writer: _Writer) -> None:
        self.writer = writer
        self.types: dict[str, Type] = {}
        self.constants: dict[str, Constant] = {}
        self.operations: list[Operation] = []
        self.known: dict[Any, str] = {}
        self.handles: set[str] = set()
        self._by_reference: dict[str, str] = {}

    def read(self, tensor: Any) -> str:
        """The name of a tensor."""
        return self.known[_key(tensor)]

    def constant(self, constant: Constant, like: str) -> str:
        """The name of a constant; equal contents are one."""
        if constant.reference not in self._by_reference:
            name = self.writer.name(like)
            self._by_reference[constant.reference] = name
            self.constants[name], self.types[name] = constant, constant.type
        return self._by_reference[constant.reference]

    def captured(self, tensor: Any, outside: Any) -> str:
        """What a function closes over: a variable, a constant, a table."""
        values = self.writer.values
        if tensor.dtype != tf.resource:
            return self.constant(values.add(outside.numpy()), tensor.op.name)
        data = getattr(outside, "_handle_data", None)
        label = tensor.op.name.removesuffix("/resource").removesuffix("/ReadVariableOp")
        if data is None or not data.is_set or not data.shape_and_type:
            name = self.constant(values.add_handle(label, Type("string", ()), outside), label)
            self.handles.add(name)
            return name
        kind = data.shape_and_type[0]
        dtype = tf.as_dtype(kind.dtype)
        shape = tf.TensorShape(kind.shape)
        if not self.writer.assigns and shape.is_fully_defined():
            return self.constant(values.add(tf.raw_ops.ReadVariableOp(resource=outside, dtype=dtype).numpy()), label)
        found = values.add_handle(label, Type(dtype_name(dtype), tuple(shape.as_list())), outside)
        name = self.constant(found, label)
        self.handles.add(name)
        return name

    def operations_of(self, graph: Any, given: dict[Any, str]) -> None:
        """Append every operation of a graph whose inputs have the names in ``given``."""
        self.known.update(given)
        for op in _in_order(graph, self.writer.target):
            if op.outputs and all(_key(t) in given for t in op.outputs):
                continue
            self._operation(op)

    def _operation(self, op: Any) -> None:
        kind = op.type
        if kind == "NoOp" or kind == "Placeholder" or kind.startswith("_Arg"):
            if kind == "Placeholder":
                raise TargetError(self.writer.target, f"its placeholder {op.name!r} is no argument")
            return
        if kind == "Const":
            self.known[_key(op.outputs[0])] = self.constant(self._const(op), op.name)
            return
        if kind in CALLS:
            self._inline(op)
            return
        inputs = [self.read(tensor) for tensor in op.inputs]
        frozen = (
            inputs and inputs[0] in self.types and inputs[0] not in self.handles and op.inputs[0].dtype == tf.resource
        )
        if kind == "ReadVariableOp" and frozen:
            self.known[_key(op.outputs[0])] = inputs[0]
            return
        attributes: list[tuple[str, Any]] = [
            (key, Message(value.SerializeToString(deterministic=True)))
            for key, value in op.node_def.attr.items()
            if key not in _DROPPED and not value.HasField("func") and not value.list.func
        ]
        if kind == "ResourceGather" and frozen:
            kind, inputs, attributes = self._gather(op, inputs)
        elif kind == "ResourceGatherNd" and frozen:
            kind = "GatherNd"
            attributes = [("Tindices", dict(attributes)["Tindices"]), ("Tparams", dict(attributes)["dtype"])]
        if op.op_def is not None and op.op_def.is_stateful and kind not in (*LOOPS, *BRANCHES) and not (
            frozen and kind in ("GatherV2", "GatherNd")
        ):  # fmt: skip
            attributes.append(("stateful", True))
        bodies = self._bodies(op, inputs)
        if kind == "IdentityN":
            attributes.append(("shares", tuple((index, index) for index in range(len(inputs)))))
        if kind in LOOPS:
            body = dict(bodies)["body"]
            shares = _passed_on(body)
            attributes.append(("shares", tuple((index, index) for index in shares)))
            outside = frozenset(body.inputs[index] for index in shares)
            bodies = tuple(
                (k, replace(b, meta={"outside": outside if b is body else frozenset(b.inputs)})) for k, b in bodies
            )
        elif bodies:
            bodies = tuple((k, replace(b, meta={"outside": frozenset(b.inputs)})) for k, b in bodies)
        outputs = []
        for index, tensor in enumerate(op.outputs):
            outputs.append(self.writer.name(op.name if index == 0 else f"{op.name}:{index}"))
            self.known[_key(tensor)] = outputs[-1]
            self.types[outputs[-1]] = Type(dtype_name(tensor.dtype), None)
            if tensor.dtype == tf.resource and kind not in LOOPS:
                self.handles.add(outputs[-1])
        label = op.name
        self.operations.append(
            Operation(
                f"tf.{kind}",
                tuple(inputs),
                tuple(outputs),
                tuple(sorted(attributes, key=lambda a: a[0])),
                bodies,
                label,
            )
        )

    def _gather(self, op: Any, inputs: list[str]) -> tuple[str, list[str], list[tuple[str, Any]]]:
        """Rows of a variable as rows of a constant."""
        import numpy as np

        axis = self.constant(self.writer.values.add(np.int32(op.get_attr("batch_dims"))), f"{op.name}/axis")
        attributes = {
            key: Message(op.node_def.attr[key].SerializeToString(deterministic=True))
            for key in ("Tindices", "batch_dims")
        }
        attributes["Tparams"] = Message(op.node_def.attr["dtype"].SerializeToString(deterministic=True))
        attributes["Taxis"] = Message(_attribute(tf.int32))
        return "GatherV2", [inputs[0], inputs[1], axis], list(attributes.items())

    def _const(self, op: Any) -> Constant:
        return self.writer.values.add(tf.make_ndarray(op.node_def.attr["value"].tensor))

    def _inline(self, op: Any) -> None:
        graph = self.writer.body(op.node_def.attr["f"].func.name)
        given = {_key(t): self.read(outer) for t, outer in zip(graph.inputs, op.inputs, strict=True)}
        self.operations_of(graph, given)
        for outer, inner in zip(op.outputs, graph.outputs, strict=True):
            self.known[_key(outer)] = self.read(inner)

    def _bodies(self, op: Any, inputs: list[str]) -> tuple[tuple[str, Program], ...]:
        if op.type in LOOPS:
            keys = [("cond", op.node_def.attr["cond"].func.name), ("body", op.node_def.attr["body"].func.name)]
            given = inputs
        elif op.type in BRANCHES:
            keys = []
            for key in BRANCHES[op.type]:
                value = op.node_def.attr[key]
                functions = list(value.list.func) or [value.func]
                keys += [(f"{key}[{i}]" if key == "branches" else key, f.name) for i, f in enumerate(functions)]
            given = inputs[1:]
        else:
            return ()
        return tuple((key, self._body(name, given, f"{op.name}/{key}")) for key, name in keys)

    def _body(self, function: str, given: list[str], name: str) -> Program:
        graph = self.writer.body(function)
        level = _Level(self.writer)
        own: dict[Any, str] = {}
        arguments = []
        for tensor, outer in zip(graph.inputs, given, strict=True):
            arguments.append(self.writer.name(f"{name}/{tensor.op.name}"))
            own[_key(tensor)] = arguments[-1]
            level.types[arguments[-1]] = Type(dtype_name(tensor.dtype), None)
            if outer in self.handles:
                level.handles.add(arguments[-1])
        level.operations_of(graph, own)
        outputs = tuple(level.read(tensor) for tensor in graph.outputs)
        return Program(tuple(arguments), outputs, tuple(level.operations), level.types, level.constants, name)
