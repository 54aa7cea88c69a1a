"""ModelProto -> Program: nodes become operations, Constant nodes and initializers become constants, bodies are kept.

Types come from ``shapes``: the file's own value_info is believed only where inference finds nothing. What a Program cannot
say (documentation, producer, opsets) is kept in ``meta`` for writing the model back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from memfit.errors import TargetError
from memfit.frameworks.onnx.element_types import dtype_name
from memfit.frameworks.onnx.graph_rules import sorted_nodes
from memfit.frameworks.onnx.model_file import load_model
from memfit.frameworks.onnx.shapes import infer_types
from memfit.frameworks.onnx.size_rules import check_sizes
from memfit.frameworks.onnx.weights import Weights
from memfit.ir.dimension import Size, parse_size, symbol
from memfit.ir.program import OPTIONAL, SEQUENCE, Constant, Operation, Program, Type
from memfit.ir.verify import verify

DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, OverflowError)
"""What reading a graph raises that breaks rules which nothing before it looked at."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """An attribute that only ONNX reads: ``form`` is its type's name, ``data`` the serialised AttributeProto."""

    form: str
    data: bytes

    def __repr__(self) -> str:
        return f"<{self.form} of {len(self.data)} bytes>"


@dataclass(frozen=True)
class Captured:
    """A program and the weights its references lead to."""

    program: Program
    weights: Weights


def capture(path: str | Path) -> Captured:
    """The Program of an ONNX file, every tensor with its type.

    Raises:
        MissingFrameworkError, TargetError: see ``load_model``; or an operator is unknown and nothing tells its sizes.
    Cost: reading and hashing the file, then about 0.1 ms a node.
    """
    model = load_model(path)
    try:
        captured = capture_model(model, Path(path))
    except DAMAGE as error:
        text = str(error).splitlines()[0][:120] if str(error) else ""
        raise TargetError(
            str(path), f"its graph is not as ONNX has it ({type(error).__name__}: {text})", "export it again"
        ) from error
    check_sizes(captured.program, str(path))
    return captured


def program_of_file(path: str | Path) -> Program:
    """The Program of an ONNX file whose every tensor has a size.

    Raises:
        MissingFrameworkError, TargetError: as ``capture`` and ``check_known``.
    """
    program = capture(path).program
    check_known(program)
    return program


def capture_model(model: Any, path: Path | None = None) -> Captured:
    """As ``capture``, of a ModelProto in memory (``path``: the folder its external weights lie in, and its name).

    ``meta["shared"]`` of the Program: constants whose content several operations of the file read under one name.
    """
    weights = Weights(path)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    name = str(path) if path is not None else model.graph.name or "model"
    header = _without_graph(model)
    # Before version 4 of the format every initializer had to be listed as an input too: they are constants all the same.
    fixed = {tensor.name for tensor in model.graph.initializer} if model.ir_version < 4 else set()
    meta = {
        "opsets": opsets, "header": header.SerializeToString(), "graph_name": model.graph.name or "graph",
        "graph_doc": model.graph.doc_string,
        "outputs": {o.name: o.SerializeToString() for o in model.graph.output},
        "inputs": {i.name: i.SerializeToString() for i in model.graph.input if i.name not in fixed},
    }  # fmt: skip
    bare = _graph(model.graph, weights)
    shared = frozenset(constant for constant in bare.constants if _content_readers(bare, constant) > 1)
    untyped = replace(bare, name=name, meta={**meta, "shared": shared})
    program = infer_types(untyped, weights)
    verify(program, where=name)
    return Captured(program, weights)


def _content_readers(program: Program, name: str) -> int:
    """Operations that read a value for more than its shape."""
    readers = program.readers.get(name, ())
    return sum(program.operations[index].kind not in ("onnx.Shape", "onnx.Size") for index in readers)


def _without_graph(model: Any) -> Any:
    header = type(model)()
    for descriptor, value in model.ListFields():
        if descriptor.name in ("graph", "functions", "training_info"):
            continue
        if isinstance(value, (str, int, bytes)):
            setattr(header, descriptor.name, value)
        else:
            getattr(header, descriptor.name).extend(value)
    return header


def _graph(graph: Any, weights: Weights) -> Program:
    """A graph as a Program whose types are what the file says."""
    constants: dict[str, Constant] = {}
    types: dict[str, Type] = {}
    for tensor in graph.initializer:
        constants[tensor.name] = weights.add_proto(tensor)
    for value in graph.value_info:
        types[value.name] = type_of(value.type, value.name)
    for value in (*graph.input, *graph.output):
        types[value.name] = type_of(value.type, value.name)
    operations: list[Operation] = []
    for node in sorted_nodes(graph):
        constant = _constant_node(node, weights)
        if constant is not None:
            constants[node.output[0]] = constant
            continue
        operations.append(_operation(node, weights))
    for sparse in graph.sparse_initializer:
        constants[sparse.values.name] = weights.add_array(_dense(sparse))
    types.update((name, constant.type) for name, constant in constants.items())
    # An input that has an initializer is one that callers leave out: what it holds by default is a constant.
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    return Program(inputs, tuple(o.name for o in graph.output), tuple(operations), types, constants)


def _operation(node: Any, weights: Weights) -> Operation:
    domain = "" if node.domain in ("", "ai.onnx") else node.domain
    kind = f"onnx.{domain}:{node.op_type}" if domain else f"onnx.{node.op_type}"
    attributes: list[tuple[str, Any]] = []
    bodies: list[tuple[str, Program]] = []
    for attribute in node.attribute:
        if attribute.type == attribute.GRAPH:
            bodies.append((attribute.name, _graph(attribute.g, weights)))
        else:
            attributes.append((attribute.name, _attribute(attribute)))
    return Operation(
        kind,
        tuple(node.input),
        tuple(node.output),
        tuple(sorted(attributes, key=lambda pair: pair[0])),
        tuple(bodies),
        node.name,
    )


def _attribute(attribute: Any) -> Any:
    form = attribute.type
    if form == attribute.INT:
        return int(attribute.i)
    if form == attribute.FLOAT:
        return float(attribute.f)
    if form == attribute.INTS:
        return tuple(int(i) for i in attribute.ints)
    if form == attribute.FLOATS:
        return tuple(float(f) for f in attribute.floats)
    try:
        if form == attribute.STRING:
            return attribute.s.decode()
        if form == attribute.STRINGS:
            return tuple(s.decode() for s in attribute.strings)
    except UnicodeDecodeError:
        pass
    return Opaque(attribute.AttributeType.Name(form).lower(), attribute.SerializeToString())


def _constant_node(node: Any, weights: Weights) -> Constant | None:
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        return weights.add_proto(attribute.t)
    if attribute.name in ("value_int", "value_ints"):
        value: Any = attribute.i if attribute.name == "value_int" else list(attribute.ints)
        return weights.add_array(np.array(value, dtype=np.int64))
    if attribute.name in ("value_float", "value_floats"):
        value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        return weights.add_array(np.array(value, dtype=np.float32))
    if attribute.name in ("value_string", "value_strings"):
        value = attribute.s if attribute.name == "value_string" else list(attribute.strings)
        return weights.add_array(np.array(value, dtype=object))
    if attribute.name == "sparse_value":
        return weights.add_array(_dense(attribute.sparse_tensor))
    return None


def _dense(sparse: Any) -> Any:
    from onnx import numpy_helper

    shape = tuple(sparse.dims)
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(shape, dtype=values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def type_of(proto: Any, name: str) -> Type:
    """The Type of a TypeProto; ``name`` is what open dimensions without a name are called after."""
    which = proto.WhichOneof("value")
    if which == "sequence_type":
        inner = type_of(proto.sequence_type.elem_type, name)
        shape = None if inner.shape is None else (symbol(f"{name}.length"), *inner.shape)
        return Type(inner.dtype, shape, SEQUENCE)
    if which == "optional_type":
        inner = type_of(proto.optional_type.elem_type, name)
        return Type(inner.dtype, inner.shape, inner.form or OPTIONAL)
    if which not in ("tensor_type", "sparse_tensor_type"):
        return Type("undefined", None)
    tensor = getattr(proto, which)
    if not tensor.HasField("shape"):
        return Type(dtype_name(tensor.elem_type), None)
    sizes: list[Size] = []
    for axis, size in enumerate(tensor.shape.dim):
        if size.HasField("dim_value") and size.dim_value >= 0:
            sizes.append(int(size.dim_value))
        elif size.dim_param:
            sizes.append(parse_size(size.dim_param))
        else:
            sizes.append(symbol(f"{name}.{axis}"))
    return Type(dtype_name(tensor.elem_type), tuple(sizes))


def check_known(program: Program) -> None:
    """Raise where a tensor has no size, not even a symbolic one.

    Raises:
        TargetError: the first such operation, and what to do.
    """
    for operation in program.operations:
        for output in operation.outputs:
            if output and not program.types[output].known:
                operator = operation.kind.removeprefix("onnx.")
                raise TargetError(
                    program.name, f"the sizes of what {operator} {operation.label!r} makes are unknown",
                    "write them into the file's value_info",
                )  # fmt: skip
