"""Program -> ModelProto -> file: what ``capture`` read, changed by passes, as an ONNX model that other tools load.

Names, opsets, documentation and the dynamic axes of inputs and outputs are those of the original. Weights go into the file,
or into one file beside it where the whole would pass protobuf's 2 GiB. Written whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from memfit.files import check_writable, write_atomically
from memfit.frameworks.onnx.weights import Weights
from memfit.ir.program import Operation, Program

_INSIDE = 1_900_000_000
"""Bytes of weights up to which a model is one file."""


def node_proto(operation: Operation, weights: Weights, bodies: bool = True) -> Any:
    """The NodeProto of an operation."""
    from onnx import AttributeProto, helper

    from memfit.frameworks.onnx.capture import Opaque

    domain, _, operator = operation.kind.removeprefix("onnx.").rpartition(":")
    node = helper.make_node(operator, operation.inputs, operation.outputs, name=operation.label, domain=domain)
    for name, value in operation.attributes:
        if isinstance(value, Opaque):
            attribute = AttributeProto()
            attribute.ParseFromString(value.data)
            node.attribute.append(attribute)
        elif value == ():
            node.attribute.append(AttributeProto(name=name, type=_empty_list(operator, domain, name)))
        else:
            node.attribute.append(helper.make_attribute(name, value))
    if bodies:
        for name, body in operation.bodies:
            node.attribute.append(helper.make_attribute(name, graph_proto(body, weights, name)))
    return node


def _empty_list(operator: str, domain: str, name: str) -> int:
    from onnx import AttributeProto, defs

    try:
        return int(defs.get_schema(operator, domain).attributes[name].type.value)
    except (defs.SchemaError, KeyError):
        return int(AttributeProto.INTS)


def graph_proto(program: Program, weights: Weights, name: str) -> Any:
    """The GraphProto of a program or body."""
    from onnx import ValueInfoProto, helper

    from memfit.frameworks.onnx.shapes import type_proto

    def value(kind: str, name: str) -> Any:
        given = program.meta.get(kind, {}).get(name)
        if given is not None:
            proto = ValueInfoProto()
            proto.ParseFromString(given)
            return proto
        if name not in program.types or program.types[name].dtype == "undefined":
            return ValueInfoProto(name=name)
        return helper.make_value_info(name, type_proto(program.types[name]))

    nodes = [node_proto(op, weights) for op in program.operations]
    _distinct_labels(nodes)
    graph = helper.make_graph(
        nodes, program.meta.get("graph_name", name),
        [value("inputs", n) for n in program.inputs], [value("outputs", n) for n in program.outputs],
        doc_string=program.meta.get("graph_doc", ""),
    )  # fmt: skip
    for constant_name, constant in program.constants.items():
        graph.initializer.append(weights.proto(constant, constant_name))
        if constant_name in program.meta.get("inputs", {}):  # a default that callers may replace
            graph.input.append(value("inputs", constant_name))
    return graph


def _distinct_labels(nodes: list[Any]) -> None:
    """Runtimes refuse two nodes of one name."""
    seen: set[str] = set()
    for node in nodes:
        label, count = node.name, 1
        while node.name and node.name in seen:
            count += 1
            node.name = f"{label}~{count}"
        seen.add(node.name)


def _fused_product() -> Any:
    """``FusedMatMul`` with transB as a function: what it is in runtimes that have no such kernel."""
    from onnx import helper

    nodes = [
        helper.make_node("Transpose", ["B"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["A", "turned"], ["Y"]),
    ]
    return helper.make_function(
        "com.microsoft", "FusedMatMul", ["A", "B"], ["Y"], nodes, [helper.make_opsetid("", 13)], ["transB"]
    )


def model_proto(program: Program, weights: Weights) -> Any:
    """The ModelProto of a captured program."""
    from onnx import ModelProto, helper

    model = ModelProto()
    model.ParseFromString(program.meta["header"])
    model.graph.CopyFrom(graph_proto(program, weights, "graph"))
    model.ir_version = max(model.ir_version, 4)  # earlier versions list every constant as an input
    if any(
        op.kind == "onnx.com.microsoft:FusedMatMul" and op.attributes == (("transB", 1),) for op in program.operations
    ):
        model.functions.append(_fused_product())
        model.ir_version = max(model.ir_version, 8)
        if "com.microsoft" not in program.meta["opsets"]:
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    stated = {entry.domain for entry in model.opset_import}
    for domain, version in program.meta["opsets"].items():
        if domain not in stated:
            model.opset_import.append(helper.make_opsetid(domain, version))
    for entry in model.opset_import:
        entry.version = program.meta["opsets"].get(entry.domain, entry.version)
    return model


def write_model(program: Program, weights: Weights, path: str | Path) -> int:
    """Write the model; returns the bytes of all files written.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    check_writable(path)
    model = model_proto(program, weights)
    if program.constant_bytes <= _INSIDE:
        return write_atomically(path, model.SerializeToString())
    return _with_data_beside(model, path)


def _with_data_beside(model: Any, path: Path) -> int:
    from onnx import external_data_helper

    data = path.with_name(path.name + ".data")
    parts = bytearray()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < 1024:
            continue
        parts.extend(b"\0" * (-len(parts) % 64))
        offset, length = len(parts), len(tensor.raw_data)
        parts.extend(tensor.raw_data)
        external_data_helper.set_external_data(tensor, data.name, offset, length)
        tensor.ClearField("raw_data")
    written = write_atomically(data, bytes(parts))
    return written + write_atomically(path, model.SerializeToString())


def file_bytes(path: str | Path) -> int:
    """Bytes of a model's file and of the files beside it that hold its weights."""
    from memfit.frameworks.onnx.model_file import data_file, is_external, load_model, tensors

    path = Path(path)
    files = {data_file(path, t)[0] for t in tensors(load_model(path)) if is_external(t)}
    return os.path.getsize(path) + sum(os.path.getsize(file) for file in files)
