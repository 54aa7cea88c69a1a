"""Operations and bytes of TensorFlow models after memfit's exact passes, and after TensorFlow's own optimizer (grappler).

Models: keras.applications by config, a recurrent and an attention model, a `tf.while_loop`; random weights, biases and
statistics as in a trained model, open batch.
Grappler gets the frozen function (variables made constants) and runs its constant folding alone, then every pass it has.
Both results are captured again by memfit, which counts operations and constants + live peak alike, at batch 8; both are run
beside the original: `sound` is whether outputs agree to 1e-4.

Grappler's remap pass writes kernels of its own (`_FusedConv2D`: a convolution with the bias, and more, behind it), which only
TensorFlow's runtime knows. `fused` counts them, `nodes_unfused` counts each as the operations that it stands for. TensorFlow
runs grappler on every function that it runs, so the last row is what it makes of memfit's result: what really runs.

    python benchmarks/tensorflow_passes.py [--models resnet50 lstm ...]    (models left out keep their rows)
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import record
import tensorflow as tf

from memfit.analyses.liveness import simulate
from memfit.analyses.lowering import lower, numbers_for
from memfit.frameworks.tensorflow.capture import capture
from memfit.frameworks.tensorflow.optimizing import Smaller
from memfit.frameworks.tensorflow.sizes import with_sizes
from memfit.ir.program import Program, programs

BATCH = 8
FOLDING = ["constfold"]
_COUNT = itertools.count()
ALL = [
    "pruning", "function", "common_subgraph_elimination", "constfold", "shape", "remap", "arithmetic", "dependency", "loop",
    "memory",
]  # fmt: skip


def attention() -> Any:
    """Two blocks of attention and a feed-forward part over tokens."""
    x = given = keras.Input((64,), dtype="int32")
    x = keras.layers.Embedding(5000, 128)(x)
    for _ in range(2):
        x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(4, 32)(x, x))
        y = keras.layers.Dense(128)(keras.layers.Dense(512, activation="gelu")(x))
        x = keras.layers.LayerNormalization()(x + y)
    return keras.Model(given, keras.layers.Dense(10)(x[:, 0]))


def recurrent() -> Any:
    """An LSTM over 20 steps: a loop of TensorFlow's."""
    given = keras.Input((20, 32))
    return keras.Model(given, keras.layers.Dense(4)(keras.layers.LSTM(64)(given)))


def loop() -> tuple[Any, Any]:
    """A function with a `tf.while_loop` whose body has a constant sub-expression."""
    weight = tf.constant(np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32) / 8)

    def turn(i: Any, a: Any) -> Any:
        return i + 1, tf.tanh(a @ (weight @ tf.transpose(weight)))

    return (lambda x: tf.while_loop(lambda i, a: i < 5, turn, (0, x))[1] + 0.0), tf.TensorSpec((None, 64), tf.float32)


def applications() -> dict[str, Callable[[], Any]]:
    """Name -> what builds the model."""
    made = keras.applications
    return {
        "mobilenetv2": lambda: made.MobileNetV2(weights=None),
        "resnet50": lambda: made.ResNet50(weights=None),
        "densenet121": lambda: made.DenseNet121(weights=None),
        "efficientnetb0": lambda: made.EfficientNetB0(weights=None),
        "attention": attention,
        "lstm": recurrent,
    }


def as_trained(model: Any) -> Any:
    """The model with numbers other than 0 and 1 where they stand before training: a bias of zeros is no operation."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.rpartition("/")[2] in ("gamma", "beta", "moving_mean", "moving_variance", "bias"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return model


def renamed(graph: Any) -> Any:
    """A graph whose functions have names of their own: one process knows one function by a name."""
    names = {f.signature.name: f"{f.signature.name}_{next(_COUNT)}" for f in graph.library.function}
    for function in graph.library.function:
        function.signature.name = names[function.signature.name]
    for node in [*graph.node, *(node for f in graph.library.function for node in f.node_def)]:
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            for called in [value.func, *value.list.func] if value.HasField("func") else value.list.func:
                called.name = names.get(called.name, called.name)
    return graph


def grappler(function: Any, passes: list[str]) -> Any:
    """The frozen function after some of grappler's passes, as a function of the same inputs."""
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tensorflow.python.grappler import tf_optimizer

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    outputs = [tensor.name for tensor in frozen.outputs]
    meta = tf.compat.v1.train.export_meta_graph(graph_def=frozen.graph.as_graph_def(), graph=frozen.graph)
    meta.collection_def["train_op"].node_list.value.extend(name.split(":")[0] for name in outputs)
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.optimizers.extend(passes)
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.meta_optimizer_iterations = 2
    graph = renamed(tf_optimizer.OptimizeGraph(config, meta))
    inputs = [tensor.name for tensor in frozen.inputs]
    whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    return whole.prune([whole.graph.get_tensor_by_name(n) for n in inputs],
                       [whole.graph.get_tensor_by_name(n) for n in outputs])  # fmt: skip


def figures(program: Program) -> dict[str, int]:
    """Operations, constants, and constants + live peak in stored order at the batch, projected."""
    graph = lower(
        program,
        numbers_for(program, {"batch": BATCH} if "batch" in program.dimensions else {}, default=BATCH),
        in_place=False,
    )
    kernels = [op for inner in programs(program) for op in inner.operations if op.kind.startswith("tf._Fused")]
    inside = sum(len(op.attribute("fused_ops").value.list.s) for op in kernels)
    return {
        "nodes": program.node_count, "fused": len(kernels), "nodes_unfused": program.node_count + inside,
        "constants": program.constant_bytes, "peak": simulate(graph, range(len(graph.ops))).peak,
    }  # fmt: skip


def difference(first: Callable[..., Any], second: Callable[..., Any], specification: Any) -> float:
    """Largest difference of outputs over the largest output, on random inputs."""
    shape = [BATCH if size is None else size for size in specification.shape]
    random = np.random.default_rng(1)
    if specification.dtype.is_integer:
        given = tf.constant(random.integers(0, 5000, shape), specification.dtype)
    else:
        given = tf.constant(random.standard_normal(shape), specification.dtype)
    found = [np.asarray(tf.nest.flatten(call(given))[0], np.float64) for call in (first, second)]
    return float(abs(found[0] - found[1]).max() / max(abs(found[0]).max(), 1e-30))


def compared(function: Any, specification: Any) -> dict[str, Any]:
    """One model: as it is, after memfit's passes, after grappler's."""
    captured = with_sizes(capture(function, "model"))
    rows: dict[str, Any] = {"original": figures(captured.program)}
    begun = time.process_time()
    small = Smaller(captured, None, {}, True, None)
    seconds = time.process_time() - begun
    rows["memfit"] = {
        "cpu_seconds": seconds, **figures(with_sizes(capture(small.applied.signature, "model")).program),
        "max_error": small.compare({"batch": BATCH} if "batch" in captured.program.dimensions else {}).max_error,
    }  # fmt: skip
    for name, given, passes in (
        ("grappler, constant folding", function, FOLDING),
        ("grappler, all passes", function, ALL),
        ("memfit, then grappler", small.applied.signature, ALL),
    ):
        try:
            begun = time.process_time()
            made = grappler(given, passes)
            seconds = time.process_time() - begun
            rows[name] = {"cpu_seconds": seconds, **figures(with_sizes(capture(made, "model")).program),
                          "max_error": difference(function, made, specification)}  # fmt: skip
        except Exception as error:
            rows[name] = {"failed": f"{type(error).__name__}: {error}"[:200]}
    for name, row in rows.items():
        if "max_error" in row:
            row["sound"] = row["max_error"] <= 1e-4
        print(f"  {name:28} {row}", flush=True)
    return rows


def main() -> None:
    """Run the models, write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*")
    names = parser.parse_args().models
    keras.utils.set_random_seed(0)
    path = record.RESULTS / "tensorflow-passes.json"
    results = json.loads(path.read_text())["models"] if names and path.is_file() else {}
    for name, build in applications().items():
        if not names or name in names:
            model = as_trained(build())
            specification = tf.TensorSpec((None, *model.inputs[0].shape[1:]), model.inputs[0].dtype)
            print(name, flush=True)
            function = tf.function(lambda x, model=model: model(x, training=False)).get_concrete_function(specification)
            results[name] = compared(function, specification)
    if not names or "loop" in names:
        print("loop", flush=True)
        body, specification = loop()
        results["loop"] = compared(tf.function(body).get_concrete_function(specification), specification)
    print(record.write("tensorflow-passes", {"batch": BATCH, "models": results}))


if __name__ == "__main__":
    main()
