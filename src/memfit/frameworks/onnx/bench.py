"""ONNX's side of the passes: the bytes behind constants, and folding by the runtime itself.

All operations to fold become one model that ONNX Runtime runs without optimising it; where the runtime is not there or
refuses, onnx's reference evaluator does, one operation at a time. Cost: one session, about 2 ms, and the operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memfit.frameworks.onnx.weights import Weights
from memfit.ir.program import Constant, Operation, Program


class Bench:
    """A ``passes.workbench.Workbench`` over one captured model."""

    def __init__(self, weights: Weights, opsets: Mapping[str, int], ir_version: int = 10) -> None:
        self.weights, self.opsets, self.ir_version = weights, dict(opsets), ir_version

    def array(self, constant: Constant) -> Any:
        """The constant as an array."""
        return self.weights.array(constant)

    def keep(self, array: Any) -> Constant:
        """The constant with an array's content."""
        return self.weights.add_array(array)

    def evaluate(
        self, program: Program, operations: Sequence[Operation], wanted: Sequence[str]
    ) -> Mapping[str, Any] | None:
        """Values of ``wanted`` names that ``operations`` make out of constants; None where nothing can run them."""
        if not wanted:
            return {}
        model = self._model(program, operations, wanted)
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.log_severity_level = 4
            options.intra_op_num_threads = 1
            options.add_session_config_entry("session.disable_prepacking", "1")
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return dict(zip(wanted, session.run(list(wanted), {}), strict=True))
        except Exception:  # the runtime raises its own kinds, or is not installed
            return self._by_reference(model, wanted)

    def _model(self, program: Program, operations: Sequence[Operation], wanted: Sequence[str]) -> Any:
        from onnx import ValueInfoProto, helper

        from memfit.frameworks.onnx.shapes import type_proto
        from memfit.frameworks.onnx.writing import node_proto

        read = {name for operation in operations for name in operation.reads}
        nodes = [node_proto(operation, self.weights) for operation in operations]
        constants = [self.weights.proto(c, name) for name, c in program.constants.items() if name in read]
        outputs = [
            helper.make_value_info(name, type_proto(program.types[name]))
            if program.types[name].dtype != "undefined"
            else ValueInfoProto(name=name)
            for name in wanted
        ]
        graph = helper.make_graph(nodes, "fold", [], outputs, initializer=constants)
        imports = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=min(self.ir_version, 10))

    def _by_reference(self, model: Any, wanted: Sequence[str]) -> Mapping[str, Any] | None:
        from onnx.reference import ReferenceEvaluator

        try:
            return dict(zip(wanted, ReferenceEvaluator(model).run(list(wanted), {}), strict=True))
        except Exception:  # an operator that the reference does not know
            return None
