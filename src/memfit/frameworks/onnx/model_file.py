"""An ONNX file -> its ModelProto, with every refusal that a file can deserve said in one sentence.

Weights that lie in files beside the model are never read here, only looked at: a location that leads out of the model's
folder (absolute, through "..", through a link) is refused, and so is one that is missing or shorter than the model says.
Cost: reading the file; a check by ``onnx.checker``, about 0.2 s a 100 MB.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memfit.errors import MissingFrameworkError, TargetError
from memfit.frameworks.onnx.element_types import dtype_name
from memfit.frameworks.onnx.graph_rules import check_bytes, check_graph, stored_bytes

_PROTOBUF_LIMIT = 2**31 - 1
_LARGE = 1 << 14
_BREACH = re.compile(r"\(op_type:(\w+)(?:, node name: ([^)]*))?\): \[(?:Shape|Type)InferenceError\] (.*)")
_KERNELS = (("com.microsoft", "FusedMatMul"),)
"""Functions that stand for a kernel of ONNX Runtime and stay one operation."""


def load_model(path: str | Path) -> Any:
    """The ModelProto of a file, checked, local functions inlined, external weights left where they are.

    Raises:
        MissingFrameworkError: onnx is not installed.
        TargetError: there is no such file, it is no ONNX model, it breaks ONNX's rules, or weights beside it are missing or
            lie outside of its folder.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingFrameworkError("onnx", "onnx") from error
    path = Path(path)
    name = str(path)
    if not path.is_file():
        raise TargetError(
            name, "it is a folder" if path.is_dir() else "there is no such file", "write the path of an .onnx file"
        )
    size = path.stat().st_size
    if size > _PROTOBUF_LIMIT:
        raise TargetError(
            name, f"the file takes {size} bytes, and a protobuf file can hold {_PROTOBUF_LIMIT} (2 GiB)",
            "save the model with its weights as external data (onnx.save(..., save_as_external_data=True))",
        )  # fmt: skip
    if size == 0:
        raise TargetError(name, "the file is empty")
    try:
        model = onnx.load_model(name, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise TargetError(
            name, f"it is no ONNX model, or it is damaged ({_first_line(error)})", "export or copy it again"
        ) from error
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise TargetError(name, "it holds no graph", "export or copy it again")
    external = [tensor for tensor in tensors(model) if is_external(tensor)]
    for tensor in external:
        data_file(path, tensor)
    for tensor in tensors(model):
        if tensor.HasField("raw_data"):
            check_bytes(tensor, dtype_name(tensor.data_type), len(tensor.raw_data), name)
    check_graph(model.graph, name)
    _check(onnx, model, path, bool(external))
    if any((function.domain, function.name) not in _KERNELS for function in model.functions):
        from onnx import inliner

        try:
            model = inliner.inline_selected_functions(model, list(_KERNELS), exclude=True)
        except Exception as error:
            raise TargetError(name, f"its local functions cannot be inlined ({_first_line(error)})") from error
    return model


def tensors(model: Any) -> Iterator[Any]:
    """Every TensorProto of a model: initializers and attributes, in bodies and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def is_external(tensor: Any) -> bool:
    """Whether a tensor's bytes lie in another file."""
    return bool(tensor.data_location == tensor.EXTERNAL)


def data_file(path: Path, tensor: Any) -> tuple[Path, int, int]:
    """(file, offset, bytes) of an external tensor.

    Raises:
        TargetError: the file is missing, too short, or outside of the model's folder.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = os.path.realpath(path.parent)
    file = os.path.realpath(os.path.join(folder, location)) if "\0" not in location else ""
    where = f"the weights {tensor.name!r} lie in {location!r}"
    if not location or os.path.isabs(location) or not file.startswith(folder + os.sep):
        raise TargetError(
            str(path), f"{where}, which is outside of the model's folder", "only files beside the model are read"
        )
    if not os.path.isfile(file):
        raise TargetError(str(path), f"{where}, which does not exist", f"copy that file into {folder}")
    try:
        offset = int(entries.get("offset") or 0)
        available = os.path.getsize(file) - offset
        length = int(entries["length"]) if entries.get("length") else stored_bytes(tensor, dtype_name(tensor.data_type))
    except ValueError as error:
        raise TargetError(str(path), f"{where} at an offset or length that is no number") from error
    if offset < 0 or length < 0 or length > available:
        raise TargetError(
            str(path), f"{where} at bytes {offset} to {offset + length}, but that file ends at {available + offset}",
            "copy the weights again",
        )  # fmt: skip
    check_bytes(tensor, dtype_name(tensor.data_type), length, str(path))
    return Path(file), offset, length


def _check(onnx: Any, model: Any, path: Path, external: bool) -> None:
    try:
        light = _without_weights(onnx, model)
        onnx.checker.check_model(str(path) if external else light)
    except onnx.checker.ValidationError as error:
        text = str(error)
        if "sorted" in text.lower() and "topolog" in text.lower():
            return  # an order is found below
        if "Field 'shape'" not in text:  # runtimes do without the shapes of outputs, and so does inference here
            raise TargetError(str(path), f"it breaks a rule of ONNX: {_first_line(error)}") from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise TargetError(str(path), f"it cannot be checked ({_first_line(error)})") from error
    _infer_strictly(onnx, light, path)


def _infer_strictly(onnx: Any, light: Any, path: Path) -> None:
    """Refuse what breaks a rule of its operator: an axis that is not there, sizes that do not fit together.

    What the file says of its values' sizes is left out: it may be old, and runtimes follow the operators.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(light)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        onnx.shape_inference.infer_shapes(bare, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        found = _BREACH.search(str(error))
        if found is not None and not found[3].startswith(
            "Inference error"
        ):  # that is about onnx's own body of an operator
            operator, name, why = found.groups()
            where = f"{operator} {name!r}" if name else operator
            raise TargetError(
                str(path), f"its operation {where} breaks a rule of ONNX: {why.strip()[:200]}", "export it again"
            ) from error
    except (ValueError, TypeError, RuntimeError):
        return  # what it cannot follow is followed here


def _without_weights(onnx: Any, model: Any) -> Any:
    """The model with its large initializers, and those in other files, as inputs: the checker serialises what it checks."""
    elsewhere = onnx.TensorProto.EXTERNAL
    if not any(math.prod(t.dims) > _LARGE or t.data_location == elsewhere for t in model.graph.initializer):
        return model
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(light.graph, field).extend(getattr(model.graph, field))
    listed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _LARGE and tensor.data_location != elsewhere:
            light.graph.initializer.append(tensor)
        elif tensor.name not in listed:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
