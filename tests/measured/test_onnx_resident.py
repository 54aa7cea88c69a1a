"""A tied embedding held once: resident bytes of fresh ONNX Runtime processes, and a projected peak beside a measured one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from memfit.analyses.lowering import numbers_for
from memfit.frameworks.comparing import inputs_for
from memfit.frameworks.onnx import optimizing
from memfit.frameworks.onnx.running import ENVIRONMENT, LEAN, process_peak
from memfit.frameworks.onnx.writing import write_model

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(sys.platform != "linux", reason="resident bytes are read from /proc"),
]

TOKENS, WIDTH = 40_000, 256
TABLE = TOKENS * WIDTH * 4


def tied(folder: Path) -> Path:
    helper = onnx.helper
    nodes = [
        helper.make_node("Gather", ["w", "ids"], ["e"]), helper.make_node("Relu", ["e"], ["h"]),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["h", "t"], ["y"]),
    ]  # fmt: skip
    table = np.random.default_rng(0).standard_normal((TOKENS, WIDTH)).astype(np.float32)
    graph = helper.make_graph(
        nodes, "tied", [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["b", "s"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["b", "s", TOKENS])],
        [onnx.numpy_helper.from_array(table, "w")],
    )  # fmt: skip
    path = folder / "tied.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(made.SerializeToString())
    return path


def test_the_optimised_process_needs_a_table_less_than_the_original(tmp_path: Path) -> None:
    path, new = tied(tmp_path), tmp_path / "new.onnx"
    found = optimizing.smaller(path)
    write_model(found.optimized.program, found.captured.weights, new)
    program = found.captured.program
    inputs = inputs_for(program, numbers_for(program, {"b": 2, "s": 256}))
    growth = {}
    for name, model in (("original", path), ("new", new)):
        peak = process_peak(model, inputs, LEAN, tmp_path, runs=1, environment=ENVIRONMENT)
        growth[name] = peak["peak"] - peak["empty"]
    assert growth["new"] < growth["original"] - 0.8 * TABLE
    projected = TABLE + 2 * 256 * (TOKENS + WIDTH) * 4
    assert abs(growth["new"] - projected) < 0.6 * TABLE
