"""What every front end must do: sizes for every value, predict and plan at bound dimensions, and a runnable model back.

Two networks (``networks``) in every framework; ``apply`` of the captured and of the optimised Program is run at two sizes
and held against the framework's own result.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, jax_function, keras_model, onnx_model, sample_shape, tensorflow_module, torch_module

from memfit.api.optimizing import optimize
from memfit.api.planning import plan
from memfit.api.prediction import predict
from memfit.ir.program import Program, programs
from memfit.ir.verify import verify

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
SIZES = (2, 7)


@dataclass(frozen=True)
class Case:
    """``target``: what commands take; ``runs``: arrays -> results, of (the framework itself, captured, optimised).

    ``optimised``: the Program that the third of them runs; ``shape``: of one row of the input.
    """

    target: Any
    program: Program
    optimised: Program
    runs: tuple[Callable[[Any], Any], ...]
    shape: tuple[int, ...]


def onnx_case(folder: Path, network: str) -> Case:
    """An ONNX file."""
    model = onnx_model(network)
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    import onnx

    path, same, small = folder / "network.onnx", folder / "same.onnx", folder / "small.onnx"
    onnx.save(model, path)
    optimize(path, output=small)
    from memfit.frameworks.onnx.capture import capture
    from memfit.frameworks.onnx.writing import write_model

    captured = capture(path)
    write_model(captured.program, captured.weights, same)
    runs = []
    for file in (path, same, small):
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        runs.append(lambda x, session=session: session.run(None, {"x": x})[0])
    shape = sample_shape(network, channels_last=False)
    return Case(path, captured.program, capture(small).program, tuple(runs), shape)


def saved_model_case(folder: Path, network: str) -> Case:
    """A SavedModel folder."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install 'memfit[tensorflow]')")
    module = tensorflow_module(network)
    path = folder / "network"
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.__call__.get_concrete_function()})
    return _of_tensorflow(folder, network, path, tf.saved_model.load(str(path)).signatures["serving_default"])


def keras_case(folder: Path, network: str) -> Case:
    """A .keras file."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install 'memfit[tensorflow]')")
    model = keras_model(network)
    path = folder / "network.keras"
    model.save(path)
    return _of_tensorflow(folder, network, path, lambda x: model(x, training=False))


def _of_tensorflow(folder: Path, network: str, path: Path, own: Callable[[Any], Any]) -> Case:
    import tensorflow as tf

    from memfit.frameworks.tensorflow.apply import Applied
    from memfit.frameworks.tensorflow.saved_model import captured_file

    small = folder / "small"
    optimize(path, output=small)
    captured, optimised = captured_file(path), captured_file(small)
    same, new = Applied(captured), tf.saved_model.load(str(small)).signatures["serving_default"]
    runs = tuple(
        lambda x, call=call: tf.nest.flatten(call(tf.constant(x)))[0].numpy()  # type: ignore[misc]
        for call in (own, same, new)
    )
    return Case(path, captured.program, optimised.program, runs, sample_shape(network, channels_last=True))


def jax_case(folder: Path, network: str) -> Case:
    """A JAX function with a named dimension."""
    jax = pytest.importorskip("jax", reason="JAX is not installed (pip install 'memfit[jax]')")
    from memfit import Step
    from memfit.frameworks.jax.apply import apply
    from memfit.frameworks.jax.optimizing import Smaller

    function, shape = jax_function(network), sample_shape(network, channels_last=True)
    (batch,) = jax.export.symbolic_shape("batch")
    step = Step(function, jax.ShapeDtypeStruct((batch, *shape), np.float32))
    smaller = Smaller(step, "network", {}, True, None)
    calls = (function, apply(smaller.captured), smaller.applied)
    runs = tuple(lambda x, call=call: np.asarray(jax.tree.leaves(call(x))[0]) for call in calls)  # type: ignore[misc]
    return Case(step, smaller.program, smaller.optimized.program, runs, shape)


def exported_case(folder: Path, network: str) -> Case:
    """A .pt2 file."""
    module = torch_module(network)
    import torch

    path, small = folder / "network.pt2", folder / "small.pt2"
    shape = sample_shape(network, channels_last=False)
    shapes = ({0: torch.export.Dim("rows", min=2)},)
    torch.export.save(torch.export.export(module, (torch.zeros(4, *shape),), dynamic_shapes=shapes), path)
    optimize(path, output=small)
    from memfit.frameworks.torch.exported_apply import Applied, Values
    from memfit.frameworks.torch.exported_capture import captured_file

    captured = captured_file(path)
    same, new = Applied(captured, captured.program, Values(captured)), torch.export.load(small).module()
    runs = tuple(_of_torch(m) for m in (module, same, new))
    return Case(path, captured.program, captured_file(small).program, runs, shape)


def torch_case(folder: Path, network: str) -> Case:
    """A step of PyTorch's, exported on the way."""
    module = torch_module(network)
    import torch

    from memfit import Step
    from memfit.frameworks.torch.exported_apply import Applied
    from memfit.frameworks.torch.exported_optimizing import Smaller, exported_step

    shape = sample_shape(network, channels_last=False)
    captured = exported_step(Step(module, torch.zeros(4, *shape)), "network", folder)
    smaller = Smaller(captured, {}, True, None, has_file=False)
    same = Applied(captured, captured.program, smaller.values)
    runs = tuple(_of_torch(m) for m in (module, same, smaller.applied))
    return Case(folder / "model.pt2", captured.program, smaller.optimized.program, runs, shape)


def _of_torch(module: Any) -> Callable[[Any], Any]:
    import torch

    def run(x: Any) -> Any:
        with torch.no_grad():
            return module(torch.from_numpy(x.copy())).numpy()

    return run


FRONT_ENDS = [onnx_case, saved_model_case, keras_case, jax_case, exported_case, torch_case]
ALL = [(build, network) for build in FRONT_ENDS for network in NETWORKS]


@pytest.fixture(scope="module", params=ALL, ids=lambda pair: f"{pair[0].__name__.removesuffix('_case')}-{pair[1]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    build, network = request.param
    made: Case = build(tmp_path_factory.mktemp("front_end"), network)
    return made


def test_every_value_is_sized_or_symbolic(case: Case) -> None:
    for program in (case.program, case.optimised):
        verify(program)
        assert program.dimensions == case.program.dimensions
        assert program.dimensions[0] == "batch"
        assert all(given.known for inner in programs(program) for given in inner.types.values())
    assert case.optimised.node_count <= case.program.node_count


def test_predict_and_plan_work_and_follow_the_dimension(case: Case) -> None:
    row = prod(case.shape) * 4
    others = {name: int(case.shape[int(name[-1]) - 1]) for name in case.program.dimensions[1:]}  # x_2: what an axis has
    live = [predict(case.target, bound={"batch": size, **others}).peak.live for size in (100, 1000)]
    assert live[1] - live[0] >= 900 * row  # the input alone grows by this
    assert plan(case.target, bound={"batch": 64, **others}, time_limit=1).best.peak >= 64 * row


@pytest.mark.parametrize("size", SIZES)
def test_what_comes_back_gives_equal_results_at_any_size(case: Case, size: int) -> None:
    x = np.random.default_rng(size).standard_normal((size, *case.shape)).astype(np.float32)
    own, same, smaller = (run(x) for run in case.runs)
    np.testing.assert_allclose(same, own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(smaller, own, rtol=1e-5, atol=1e-6)
