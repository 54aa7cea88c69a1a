"""Small ONNX models for tests: built in a line or two, with random weights that no rewrite may get wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node; names separated by spaces, _ for one left out."""
    names = ["" if name == "_" else name for name in inputs.split()]
    return onnx.helper.make_node(kind, names, outputs.split(), **attributes)


def value(name: str, shape: Sequence[Any] | None, dtype: str = "float32") -> Any:
    """A ValueInfo."""
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return onnx.helper.make_tensor_value_info(name, number, shape)


def model(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: dict[str, Any] | None = None, *,
    opset: int = 20,
) -> Any:  # fmt: skip
    """A checked ModelProto."""
    held = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = onnx.helper.make_graph(nodes, "graph", inputs, outputs, initializer=held)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)


def saved(made: Any, folder: Path, name: str = "model.onnx") -> Path:
    """The model as a file."""
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


def weights(*shape: int, seed: int = 0) -> Any:
    """Random float32."""
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)
