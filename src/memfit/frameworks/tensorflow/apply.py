"""Program -> a TensorFlow function that runs its operations, with the arguments and results of what was captured.

Each operation is put into the new graph with the attributes that the capture kept; loops and branches get new bodies. Small
constants become constants of the graph, larger ones variables beside it, so that a saved model may pass protobuf's 2 GiB.
Axes that were open stay open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework import func_graph, ops
from tensorflow.python.ops import control_flow_util_v2

from memfit.frameworks.tensorflow.capture import BRANCHES, LOOPS, Captured
from memfit.frameworks.tensorflow.graph_building import added
from memfit.frameworks.tensorflow.values import Values
from memfit.ir.program import Operation, Program, programs

INSIDE = 4096
"""Bytes up to which a constant stands in the graph itself."""
_NO_VARIABLE = ("string",)


class Applied(tf.Module):  # type: ignore[misc]
    """A Program as a TensorFlow module: called with the captured function's arguments, in the order of its inputs.

    ``signature``: the concrete function; its arguments are named as the captured one's.
    """

    def __init__(self, captured: Captured, program: Program | None = None) -> None:
        super().__init__(name="memfit")
        self._captured = captured
        self._program = program if program is not None else captured.program
        self._large: dict[str, Any] = {}
        for name, constant in self._program.constants.items():
            if constant.reference in captured.values.handles or constant.type.dtype in _NO_VARIABLE:
                continue
            if constant.nbytes > INSIDE and constant.reference not in self._large:
                array = captured.values.array(constant)
                self._large[constant.reference] = tf.Variable(array, trainable=False, name=_identifier(name))
        self.weights = list(self._large.values())  # what a saved model keeps
        specifications = [
            tf.TensorSpec(
                [None if not isinstance(size, int) else size for size in captured.program.types[name].shape or ()],
                captured.program.types[name].dtype, name=argument,
            )
            for name, argument in zip(captured.program.inputs, argument_names(captured), strict=True)
        ]  # fmt: skip
        made = tf.function(self._run, autograph=False).get_concrete_function(*specifications)
        object.__setattr__(self, "signature", made)  # past tf.Module: what is saved is what ``saved_model.write`` names

    def _run(self, *arguments: Any) -> Any:
        values = self._captured.values
        read = {reference: variable.value() for reference, variable in self._large.items()}
        results = evaluate(self._program, list(arguments), values, read)
        structure = self._captured.structured_outputs
        flat = tf.nest.flatten(structure, expand_composites=True)
        if len(flat) != len(results):
            return results
        return tf.nest.pack_sequence_as(structure, results, expand_composites=True)

    def __call__(self, *arguments: Any) -> Any:
        """The results for tensors or arrays, one for each input."""
        given = [
            tf.convert_to_tensor(value, dtype=self._captured.program.types[name].dtype)
            for name, value in zip(self._program.inputs, arguments, strict=True)
        ]
        return self.signature(*given)


def apply(captured: Captured, program: Program | None = None) -> Callable[..., Any]:
    """A callable module with the captured function's arguments and results; see ``Applied``."""
    return Applied(captured, program)


def argument_names(captured: Captured) -> list[str]:
    """A name for each input, unique: the one that the captured function's signature gives it."""
    specifications = [s for s in tf.nest.flatten(captured.structured_inputs) if isinstance(s, tf.TensorSpec)]
    names = [s.name or "" for s in specifications]
    if len(names) != len(captured.program.inputs) or len(set(names)) != len(names) or "" in names:
        names = list(captured.program.inputs)
    return [_identifier(name) for name in names]


def _identifier(name: str) -> str:
    text = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    return text if text[:1].isalpha() else f"x{text}"


def evaluate(
    program: Program, arguments: list[Any], values: Values, read: Mapping[str, Any] | None = None
) -> list[Any]:  # fmt: skip
    """The outputs of ``program`` in the default graph. ``read``: tensors that stand for constants, by reference."""
    known: dict[str, Any] = {}
    for name, constant in program.constants.items():
        handle = values.handles.get(constant.reference)
        if handle is not None:
            known[name] = handle
        elif read is not None and constant.reference in read:
            known[name] = read[constant.reference]
        else:
            known[name] = tf.constant(values.array(constant), dtype=constant.type.dtype)
    known.update(zip(program.inputs, arguments, strict=True))
    for operation in program.operations:
        inputs = [known[name] for name in operation.inputs]
        if operation.kind == "tf.Identity" and operation.outputs[0] in program.outputs:
            made = inputs  # tf.function puts an Identity in front of what it returns by itself
        else:
            made = _perform(operation, inputs, values)
        known.update((name, tensor) for name, tensor in zip(operation.outputs, made, strict=True) if name)
    return [known[name] for name in program.outputs]


def _perform(operation: Operation, inputs: list[Any], values: Values) -> list[Any]:
    kind = operation.kind.partition(".")[2]
    if kind in LOOPS:
        return _loop(kind, operation, inputs, values)
    if kind in BRANCHES:
        return _branch(kind, operation, inputs, values)
    if kind in ("Identity", "EnsureShape") and inputs[0].dtype == tf.resource:
        return inputs
    return added(operation, inputs)


def _body(body: Program, given: list[Any], shapes: list[Any], values: Values) -> Any:
    """A body as a function of arguments like ``given``.

    What ``tf.function`` makes has an Identity in front of every result, there to wait for what has effects; where nothing
    in the body has any, the bare graph is the function.
    """
    specifications = [tf.TensorSpec(shape, t.dtype) for shape, t in zip(shapes, given, strict=True)]

    def run(*arguments: Any) -> list[Any]:
        return evaluate(body, list(arguments), values)

    if any(operation.attribute("stateful") for inner in programs(body) for operation in inner.operations):
        return tf.function(run, autograph=False).get_concrete_function(*specifications)
    return func_graph.func_graph_from_py_func(
        f"body_{ops.uid()}", run, specifications, {}, add_control_dependencies=False
    )


def _open(body: Program, given: list[Any]) -> list[Any]:
    """Shapes of a body's arguments, open where a size is not one number."""
    found: list[Any] = []
    for name, tensor in zip(body.inputs, given, strict=True):
        shape = body.types[name].shape
        if tensor.dtype in (tf.variant, tf.resource):
            found.append([])
        else:
            found.append([size if isinstance(size, int) else None for size in shape or ()])
    return found


def _loop(kind: str, operation: Operation, inputs: list[Any], values: Values) -> list[Any]:
    bodies = dict(operation.bodies)
    inputs = [t if t.dtype == tf.resource else tf.convert_to_tensor(t) for t in inputs]
    shapes = _open(bodies["body"], inputs)
    cond, body = _body(bodies["cond"], inputs, shapes, values), _body(bodies["body"], inputs, shapes, values)
    return _with_functions(kind, operation, inputs, {"cond": cond, "body": body}, {
        "T": [t.dtype for t in inputs], "output_shapes": shapes,
    })  # fmt: skip


def _branch(kind: str, operation: Operation, inputs: list[Any], values: Values) -> list[Any]:
    inputs = [t if t.dtype == tf.resource else tf.convert_to_tensor(t) for t in inputs]
    functions: dict[str, Any] = {}
    made = [(key, _body(body, inputs[1:], _open(body, inputs[1:]), values)) for key, body in operation.bodies]
    for key, function in made:
        plain = key.partition("[")[0]
        functions[plain] = [*functions.get(plain, []), function] if plain == "branches" else function
    outputs = made[0][1].outputs
    shapes = []
    for results in zip(*(f.outputs for _, f in made), strict=True):
        ranks = {t.shape.rank for t in results}
        same = len(ranks) == 1 and None not in ranks
        shapes.append([s[0] if len(set(s)) == 1 else None for s in zip(*(t.shape.as_list() for t in results), strict=True)]
                      if same else None)  # fmt: skip
    return _with_functions(kind, operation, inputs, functions, {
        "Tin": [t.dtype for t in inputs[1:]], "Tout": [t.dtype for t in outputs], "output_shapes": shapes,
    })  # fmt: skip


def _with_functions(
    kind: str, operation: Operation, inputs: list[Any], functions: Mapping[str, Any], lists: Mapping[str, Any]
) -> list[Any]:  # fmt: skip
    """A loop or branch with new functions and what follows from its arguments."""
    graph = ops.get_default_graph()
    changed: dict[str, Any] = {}
    for key, function in functions.items():
        value = attr_value_pb2.AttrValue()
        for one in function if isinstance(function, list) else [function]:
            target = value.list.func.add() if isinstance(function, list) else value.func
            target.name = _added_to(graph, one)
        changed[key] = value
    for key, entries in lists.items():
        value = attr_value_pb2.AttrValue()
        value.list.SetInParent()
        for entry in entries:
            if key == "output_shapes":
                value.list.shape.append(tf.TensorShape(entry).as_proto())
            else:
                value.list.type.append(tf.as_dtype(entry).as_datatype_enum)
        changed[key] = value
    changed["_lower_using_switch_merge"] = attr_value_pb2.AttrValue(b=True)
    return added(operation, inputs, changed)


def _added_to(graph: Any, function: Any) -> str:
    """The name of a body's function, which the graph knows from now on."""
    if isinstance(function, func_graph.FuncGraph):
        return str(control_flow_util_v2.create_new_tf_function(function))
    function.add_to_graph(graph)
    return function.name if isinstance(function.name, str) else str(function.name.decode())


class Bench:
    """A ``passes.workbench.Workbench`` over one captured function."""

    def __init__(self, values: Values) -> None:
        self.values = values

    def array(self, constant: Any) -> Any:
        """The constant as an array."""
        return self.values.array(constant)

    def keep(self, array: Any) -> Any:
        """The constant with an array's content."""
        return self.values.add(array)

    def evaluate(self, program: Program, operations: Any, wanted: Any) -> Mapping[str, Any] | None:
        """Values of ``wanted`` that ``operations`` make out of constants; None where TensorFlow refuses."""
        if not wanted:
            return {}
        read = {name for operation in operations for name in operation.reads}
        constants = {name: c for name, c in program.constants.items() if name in read}
        part = Program((), tuple(wanted), tuple(operations), program.types, constants, "fold")
        try:
            with tf.Graph().as_default():
                results = evaluate(part, [], self.values)
                with tf.compat.v1.Session(config=_plain_session()) as session:
                    return dict(zip(wanted, map(np.asarray, session.run(results)), strict=True))
        except (ValueError, tf.errors.OpError):
            return None


def _plain_session() -> Any:
    configuration = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    configuration.graph_options.rewrite_options.disable_meta_optimizer = True
    return configuration
