"""What every front end must do: sizes for every value, predict and plan at bound dimensions, and a runnable model back.

One network (a table, a matrix product, a loop or not, values made twice) in every framework; ``apply`` of the captured and of
the optimised Program is run at two sizes and held against the framework's own result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memfit.api.optimizing import optimize
from memfit.api.planning import plan
from memfit.api.prediction import predict
from memfit.ir.program import Program, programs
from memfit.ir.verify import verify

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
SIZES = (2, 7)
WIDTH = 8


@dataclass(frozen=True)
class Case:
    """``target``: what commands take; ``runs``: arrays -> results, of (the framework itself, captured, optimised)."""

    target: Any
    program: Program
    dimension: str
    runs: tuple[Callable[[Any], Any], ...]
    settings: Mapping[str, int] | None = None


def _weights() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    shape = (WIDTH, WIDTH)
    return (
        generator.standard_normal(shape).astype(np.float32) / 3,
        generator.standard_normal(shape).astype(np.float32) / 3,
    )


def onnx_case(folder: Path) -> Case:
    """An ONNX file with a loop."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    first, second = _weights()
    text = f"""<ir_version: 9, opset_import: ["" : 17]>
    network (float[batch, {WIDTH}] x) => (float[batch, {WIDTH}] y)
    {{
        one = MatMul(x, w)
        a = Relu(one)
        b = Relu(one)
        both = Add(a, b)
        turns = Constant <value = int64 {{3}}> ()
        go = Constant <value = bool {{1}}> ()
        y = Loop(turns, go, both) <body = turn (int64 i, bool c, float[batch, {WIDTH}] s) => (bool d, float[batch, {WIDTH}] t)
        {{
            d = Identity(c)
            p = MatMul(s, v)
            t = Tanh(p)
        }}>
    }}"""
    model = onnx.parser.parse_model(text)
    for name, array in (("w", first), ("v", second)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path = folder / "network.onnx"
    onnx.save(model, path)
    small = folder / "small.onnx"
    optimize(path, output=small)
    from memfit.frameworks.onnx.capture import capture
    from memfit.frameworks.onnx.writing import write_model

    captured = capture(path)
    write_model(captured.program, captured.weights, folder / "same.onnx")
    runs = []
    for file in (path, folder / "same.onnx", small):
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        runs.append(lambda x, session=session: session.run(None, {"x": x})[0])
    return Case(path, captured.program, "batch", tuple(runs))


def tensorflow_case(folder: Path) -> Case:
    """A tf.function with a loop, and as a SavedModel."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install 'memfit[tensorflow]')")
    first, second = (tf.constant(w) for w in _weights())

    class Network(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, WIDTH))])
        def __call__(self, x: Any) -> Any:
            one = x @ first
            both = tf.nn.relu(one) + tf.nn.relu(one)
            return tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, tf.tanh(s @ second)), (0, both))[1]

    path = folder / "network"
    network = Network()
    tf.saved_model.save(network, str(path), signatures={"serving_default": network.__call__.get_concrete_function()})
    optimize(path, output=folder / "small")
    from memfit.frameworks.tensorflow.apply import Applied
    from memfit.frameworks.tensorflow.saved_model import captured_file

    captured = captured_file(path)
    own, small = (tf.saved_model.load(str(p)).signatures["serving_default"] for p in (path, folder / "small"))
    same = Applied(captured)
    return Case(
        path, captured.program, "batch",
        (
            lambda x: tf.nest.flatten(own(tf.constant(x)))[0].numpy(),
            lambda x: tf.nest.flatten(same(tf.constant(x)))[0].numpy(),
            lambda x: tf.nest.flatten(small(tf.constant(x)))[0].numpy(),
        ),
    )  # fmt: skip


def jax_case(folder: Path) -> Case:
    """A JAX function with a loop and a named dimension."""
    jax = pytest.importorskip("jax", reason="JAX is not installed (pip install 'memfit[jax]')")
    from memfit import Step
    from memfit.frameworks.jax.apply import apply
    from memfit.frameworks.jax.optimizing import Smaller

    first, second = _weights()

    def network(x: Any) -> Any:
        one = x @ first
        both = jax.nn.relu(one) + jax.nn.relu(one)
        return jax.lax.fori_loop(0, 3, lambda i, s: jax.numpy.tanh(s @ second), both)

    (batch,) = jax.export.symbolic_shape("batch")
    step = Step(network, jax.ShapeDtypeStruct((batch, WIDTH), np.float32))
    smaller = Smaller(step, "network", {}, True, None)
    same = apply(smaller.captured)
    return Case(
        step, smaller.program, "batch",
        (
            lambda x: np.asarray(network(x)),
            lambda x: np.asarray(_leaf(same(x))),
            lambda x: np.asarray(_leaf(smaller.applied(x))),
        ),
    )  # fmt: skip


def _leaf(value: Any) -> Any:
    import jax

    return jax.tree.leaves(value)[0]


def _torch_network() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (torch.nn.Parameter(torch.from_numpy(w)) for w in _weights())

        def forward(self, x: Any) -> Any:
            one = x @ self.first
            both = torch.relu(one) + torch.relu(one)
            for _ in range(3):
                both = torch.tanh(both @ self.second)
            return both

    return Network().eval()


def exported_case(folder: Path) -> Case:
    """A .pt2 file."""
    network = _torch_network()
    import torch

    path, small = folder / "network.pt2", folder / "small.pt2"
    shapes = ({0: torch.export.Dim("rows", min=2)},)
    torch.export.save(torch.export.export(network, (torch.zeros(4, WIDTH),), dynamic_shapes=shapes), path)
    optimize(path, output=small)
    from memfit.frameworks.torch.exported_apply import Applied, Values
    from memfit.frameworks.torch.exported_capture import captured_file

    captured = captured_file(path)
    same, new = Applied(captured, captured.program, Values(captured)), torch.export.load(small).module()
    return Case(path, captured.program, "batch", tuple(_of_torch(m) for m in (network, same, new)))


def torch_case(folder: Path) -> Case:
    """A step of PyTorch's, exported on the way."""
    network = _torch_network()
    import torch

    from memfit import Step
    from memfit.frameworks.torch.exported_optimizing import Smaller, exported_step

    captured = exported_step(Step(network, torch.zeros(4, WIDTH)), "network", folder)
    smaller = Smaller(captured, {}, True, None, has_file=False)
    from memfit.frameworks.torch.exported_apply import Applied

    same = Applied(captured, captured.program, smaller.values)
    path = folder / "model.pt2"
    return Case(path, captured.program, "batch", tuple(_of_torch(m) for m in (network, same, smaller.applied)))


def _of_torch(module: Any) -> Callable[[Any], Any]:
    import torch

    def run(x: Any) -> Any:
        with torch.no_grad():
            return module(torch.from_numpy(x.copy())).numpy()

    return run


FRONT_ENDS = [onnx_case, tensorflow_case, jax_case, exported_case, torch_case]


@pytest.fixture(scope="module", params=FRONT_ENDS, ids=lambda build: build.__name__.removesuffix("_case"))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    made: Case = request.param(tmp_path_factory.mktemp("front_end"))
    return made


def test_every_value_is_sized_or_symbolic(case: Case) -> None:
    verify(case.program)
    assert case.program.dimensions == (case.dimension,)
    assert all(given.known for inner in programs(case.program) for given in inner.types.values())


def test_predict_and_plan_work_and_follow_the_dimension(case: Case) -> None:
    live = [predict(case.target, bound={case.dimension: size}).peak.live for size in (100, 1000)]
    assert live[1] - live[0] >= 900 * WIDTH * 4  # the input alone grows by this
    assert plan(case.target, bound={case.dimension: 64}, time_limit=1).best.peak >= 64 * WIDTH * 4


@pytest.mark.parametrize("size", SIZES)
def test_what_comes_back_gives_equal_results_at_any_size(case: Case, size: int) -> None:
    x = np.random.default_rng(size).standard_normal((size, WIDTH)).astype(np.float32)
    own, same, smaller = (run(x) for run in case.runs)
    np.testing.assert_allclose(same, own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(smaller, own, rtol=1e-5, atol=1e-6)
