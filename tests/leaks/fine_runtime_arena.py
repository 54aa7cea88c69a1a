"""No leak: ONNX Runtime's arena grows to the largest batch that it has seen, and stays there.

source: microsoft/onnxruntime#11627
holder: none
needs: onnx, onnxruntime
steps: 200
"""

import random
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def model():
    names = ["x", "a", "b", "y"]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(["Exp", "Tanh", "Abs"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 256]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "three", ends[:1], ends[1:])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return whole.SerializeToString()


def main(steps):
    session = onnxruntime.InferenceSession(model(), providers=["CPUExecutionProvider"])
    chosen = random.Random(0)
    total = 0.0
    for step in range(steps):
        batch = np.ones((chosen.randrange(16, 1024), 256), dtype=np.float32)
        total += float(session.run(None, {"x": batch})[0][0, 0])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
