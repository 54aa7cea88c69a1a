"""TensorFlow: every value has a size, loops are gone into, what comes back has equal results, bad input is one message."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memfit.analyses.lowering import lower, numbers_for
from memfit.api.optimizing import optimize
from memfit.api.planning import plan
from memfit.api.prediction import predict
from memfit.cli.main import main
from memfit.errors import TargetError
from memfit.frameworks.tensorflow.formulas import formula
from memfit.ir.dimension import parse_size, symbol
from memfit.ir.program import programs
from memfit.ir.verify import verify

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed (pip install 'memfit[tensorflow]')")
keras = pytest.importorskip("keras")

from memfit.frameworks.tensorflow.apply import Applied, Bench  # noqa: E402
from memfit.frameworks.tensorflow.capture import Captured, capture  # noqa: E402
from memfit.frameworks.tensorflow.rewrites import REWRITES  # noqa: E402
from memfit.frameworks.tensorflow.sizes import with_sizes  # noqa: E402
from memfit.passes.exact import optimize_program, totals  # noqa: E402


def captured(function: Any, *specifications: Any) -> Captured:
    return with_sizes(capture(tf.function(function).get_concrete_function(*specifications), "tried"))


def perceptron(x: Any) -> Any:
    w = tf.constant(np.linspace(-1, 1, 96, dtype=np.float32).reshape(8, 12))
    return {"y": tf.nn.relu(x @ w + 0.5), "rows": tf.shape(x)[0]}


def loop(x: Any) -> Any:
    def turn(i: Any, a: Any) -> Any:
        return i + 1, tf.tanh(a @ tf.transpose(a) @ a) * 0.1 + a

    return tf.while_loop(lambda i, a: i < 5, turn, (0, x))[1]


def branch(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.concat([x, x], 1), lambda: tf.tile(x * 2, [1, 2]))


def called(x: Any) -> Any:
    inner = tf.function(lambda v: tf.sin(v) + tf.reshape(tf.range(8, dtype=tf.float32), [1, 8]))
    return inner(inner(x))


def convolution(x: Any) -> Any:
    image = tf.reshape(x, [-1, 2, 4, 1])
    return tf.nn.conv2d(image, tf.ones((2, 2, 1, 3)), 1, "SAME")


def listed(x: Any) -> Any:
    found = tf.TensorArray(tf.float32, tf.shape(x)[0])
    for i in tf.range(tf.shape(x)[0]):
        found = found.write(i, x[i] * tf.cast(i, tf.float32))
    return found.stack()


FUNCTIONS = [perceptron, loop, branch, called, convolution, listed]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_round_trip_at_several_sizes(function: Callable[..., Any]) -> None:
    traced = tf.function(function).get_concrete_function(tf.TensorSpec((None, 8)))
    found = with_sizes(capture(traced, "tried"))
    verify(found.program)
    assert all(t.known for p in programs(found.program) for t in p.types.values())
    assert found.program.dimensions == ("batch",)
    smaller = optimize_program(found.program, Bench(found.values), rewrites=REWRITES).program
    assert smaller.node_count <= found.program.node_count
    for applied in (Applied(found), Applied(found, smaller)):
        for rows in (2, 7):
            x = np.random.default_rng(rows).standard_normal((rows, 8)).astype(np.float32)
            expected, got = (tf.nest.flatten(f(tf.constant(x))) for f in (traced, applied))
            for a, b in zip(expected, got, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_sizes_follow_the_batch() -> None:
    found = captured(perceptron, tf.TensorSpec((None, 8)))
    small, large = (lower(found.program, numbers_for(found.program, {"batch": n})) for n in (2, 4))
    wide = [
        s.nbytes
        for graph in (small, large)
        for s in graph.storages
        if s.label.endswith("MatMul") or "matmul" in s.label
    ]
    assert wide == [2 * 12 * 4, 4 * 12 * 4]


def test_a_loop_holds_its_list_once() -> None:
    found = captured(listed, tf.TensorSpec((None, 8)))
    graph = lower(found.program, numbers_for(found.program, {"batch": 1000}))
    whole = 1000 * 8 * 4
    peak = totals(found.program, {"batch": 1000})[0]
    assert peak < 3.2 * whole  # the input, the list, the stacked result
    assert max(op.workspace for op in graph.ops) < 0.1 * whole


def test_normalisation_goes_into_the_convolution() -> None:
    layers = [keras.Input((6, 6, 2)), keras.layers.Conv2D(5, 3), keras.layers.BatchNormalization(),
              keras.layers.DepthwiseConv2D(2), keras.layers.BatchNormalization(), keras.layers.Flatten(),
              keras.layers.Dense(3), keras.layers.BatchNormalization()]  # fmt: skip
    model = keras.Sequential(layers)
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    found = captured(lambda x: model(x, training=False), tf.TensorSpec((None, 6, 6, 2)))
    smaller = optimize_program(found.program, Bench(found.values), rewrites=REWRITES).program
    kinds = [op.kind for op in smaller.operations]
    assert kinds.count("tf.Mul") == 0
    assert smaller.node_count <= 7
    x = generator.standard_normal((3, 6, 6, 2)).astype(np.float32)
    expected = np.asarray(model(x, training=False))
    np.testing.assert_allclose(
        np.asarray(Applied(found, smaller)(x)), expected, rtol=1e-4, atol=1e-4 * abs(expected).max()
    )


def test_a_kernel_that_two_convolutions_share_is_not_held_twice() -> None:
    generator = np.random.default_rng(0)
    kernel = tf.constant(generator.standard_normal((3, 3, 2, 32)).astype(np.float32))
    scales = [tf.constant(generator.uniform(0.5, 1.5, 32).astype(np.float32)) for _ in range(2)]
    found = captured(
        lambda x: [tf.nn.conv2d(x, kernel, stride, "SAME") * s for stride, s in zip((1, 2), scales, strict=True)],
        tf.TensorSpec((None, 6, 6, 2)),
    )
    smaller = optimize_program(found.program, Bench(found.values), rewrites=REWRITES).program
    assert smaller.constant_bytes <= found.program.constant_bytes
    assert [op.kind for op in smaller.operations].count("tf.Mul") == 2


@pytest.mark.parametrize("layer", ["Conv2D", "DepthwiseConv2D"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_zeros_around_an_image_are_the_convolutions_own_padding(layer: str, value: float) -> None:
    made = getattr(keras.layers, layer)(**({"filters": 3} if layer == "Conv2D" else {}), kernel_size=3, strides=2)
    made.build((None, 9, 12, 2))
    around = [[0, 0], [1, 0], [2, 3], [0, 0]]
    found = captured(lambda x: made(tf.pad(x, around, constant_values=value)), tf.TensorSpec((None, 8, 7, 2)))
    smaller = optimize_program(found.program, Bench(found.values), rewrites=REWRITES).program
    assert any(op.kind.startswith("tf.Pad") for op in smaller.operations) == (value != 0)
    x = np.random.default_rng(0).standard_normal((3, 8, 7, 2)).astype(np.float32)
    wanted = made(tf.pad(x, around, constant_values=value))
    np.testing.assert_allclose(np.asarray(Applied(found, smaller)(x)), np.asarray(wanted), rtol=1e-5, atol=1e-6)
    assert totals(smaller, {"batch": 3})[0] < totals(found.program, {"batch": 3})[0] or value


def test_bodies_return_without_an_operation_of_their_own() -> None:
    found = captured(loop, tf.TensorSpec((None, 8)))
    again = capture(Applied(found).signature, "again").program
    assert [sum(op.kind == "tf.Identity" for op in p.operations) for p in programs(again)] == [1, 0, 0]
    random = captured(
        lambda x: tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a + tf.random.uniform((8,))), (0, x))[1],
        tf.TensorSpec((None, 8)),
    )
    first, second = (np.asarray(Applied(random)(np.zeros((2, 8), np.float32))) for _ in range(2))
    assert (first != second).any()


def test_what_hands_values_on_holds_no_bytes_and_goes() -> None:
    def swish(x: Any) -> Any:
        return tf.nn.silu(tf.nn.bias_add(x, tf.zeros(8))) @ tf.ones((8, 8))  # an IdentityN for its gradient, zeros

    found = captured(swish, tf.TensorSpec((None, 8)))
    kinds = [op.kind for op in found.program.operations]
    assert {"tf.IdentityN", "tf.BiasAdd"} <= set(kinds)
    smaller = optimize_program(found.program, Bench(found.values), rewrites=REWRITES).program
    assert [op.kind for op in smaller.operations if op.kind != "tf.Identity"] == ["tf.Sigmoid", "tf.Mul", "tf.MatMul"]
    rows = 1000 * 8 * 4
    assert (
        totals(found.program, {"batch": 1000})[0] < 4.1 * rows
    )  # what goes in, with its bias, its sigmoid, their product: no copies
    x = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(Applied(found, smaller)(x)), np.asarray(swish(tf.constant(x))), rtol=1e-5)


def test_products_read_matrices_as_they_lie() -> None:
    def products(x: Any) -> Any:
        flat = tf.matmul(tf.transpose(x), tf.transpose(tf.sin(x)), transpose_a=True, transpose_b=True)
        stacked = tf.reshape(tf.concat([x, x], 0), [2, -1, 4])
        read = tf.transpose(stacked, [0, 2, 1])
        kept = tf.transpose(stacked, [2, 1, 0])  # another turn
        return flat, tf.matmul(read, stacked), read + 1.0, tf.matmul(tf.transpose(stacked, [0, 2, 1]), stacked), kept

    found = captured(products, tf.TensorSpec((4, 4)))
    smaller = optimize_program(found.program, Bench(found.values), rewrites=REWRITES).program
    assert [op.kind for op in smaller.operations].count("tf.Transpose") <= 2
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    for wanted, got in zip(products(tf.constant(x)), Applied(found, smaller)(x), strict=True):
        np.testing.assert_allclose(np.asarray(got), np.asarray(wanted), rtol=1e-5, atol=1e-6)


def test_a_clamped_size_is_no_constant() -> None:
    function = lambda x: tf.reshape(tf.tile(x[: tf.minimum(tf.shape(x)[0], 64)], [2, 1]), [-1, 8])  # noqa: E731
    traced = tf.function(function).get_concrete_function(tf.TensorSpec((None, 8)))
    found = with_sizes(capture(traced, "clamped"))
    smaller = optimize_program(found.program, Bench(found.values), rewrites=REWRITES).program
    for rows in (3, 100):
        x = np.ones((rows, 8), np.float32)
        assert Applied(found, smaller)(x).shape == traced(tf.constant(x)).shape


@pytest.mark.parametrize("text", ["3", "2*s + 1", "(s + 2)//4", "3*((s + 6)//7) + 2", "s*t", "2*s*t + s + 5"])
def test_formulas_are_found_again(text: str) -> None:
    points = [
        {"s": s, "t": t} for s, t in ((70, 3), (101, 5), (134, 8), (83, 13), (90, 21), (113, 7), (149, 18), (2, 3))
    ]
    from memfit.ir.dimension import number

    size = parse_size(text)
    assert formula(points, [number(size, p) for p in points]) == size
    assert formula(points, [p["s"] ** 2 % 91 for p in points]) is None
    assert formula(points, [p["t"] for p in points]) == symbol("t")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.LSTM(3, return_sequences=True)(inputs)))
    path = str(tmp_path_factory.mktemp("saved") / "model")
    model.export(path, verbose=False)
    model.save(path + ".keras")
    return path


def test_a_saved_model_through_predict_plan_optimize(saved: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="--bind"):
        predict(saved)
    report = optimize(saved, output=tmp_path / "small")
    assert report.after.nodes < report.before.nodes
    assert report.max_error is not None
    assert report.max_error <= 1e-5
    sizes = dict.fromkeys(report.sizes, 6)
    assert set(sizes) == set(optimize(tmp_path / "small").sizes)  # the axes are open still
    assert predict(saved, bound=sizes).peak.live > report.before.constants
    assert plan(str(tmp_path / "small"), bound=sizes, time_limit=1).best.peak > 0
    assert predict(saved + ".keras", bound=_bound(saved + ".keras")).peak.live > 0


def _bound(path: str) -> dict[str, int]:
    from memfit.api.model_files import program_of

    return dict.fromkeys(program_of(path).dimensions, 6)


def test_a_training_step(tmp_path: Path) -> None:
    file = tmp_path / "steps_of_keras.py"
    file.write_text(
        "import tensorflow as tf, keras\n"
        "def step(batch=8, momentum=0.9):\n"
        "    m = keras.Sequential([keras.Input((32,)), keras.layers.Dense(64), keras.layers.Dense(4)])\n"
        "    return {'model': m, 'inputs': tf.TensorSpec((batch, 32)), 'loss': lambda y: tf.reduce_mean(y ** 2),\n"
        "            'optimizer': keras.optimizers.SGD(0.1, momentum=momentum) if momentum else None}\n"
    )
    weights = (32 * 64 + 64 + 64 * 4 + 4) * 4
    report = predict(f"{file}:step")
    assert weights <= report.categories["optimizer_state"] <= weights + 64
    assert weights <= report.categories["parameters"] <= weights + 256
    plain = predict(f"{file}:step", settings={"momentum": 0})
    assert plain.categories["gradients"] > 0
    found = predict(f"{file}:step", budget=1 << 20, find_batch="batch").largest_batch
    assert found is not None
    assert found["confirmed"]
    assert main(["optimize", f"{file}:step"]) == 2  # it assigns variables


def refused(capsys: Any, *arguments: str) -> str:
    code = main(list(arguments))
    text = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in text
    assert "bug of memfit" not in text
    return str(text)


def test_bad_input(saved: str, tmp_path: Path, capsys: Any) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"\x0a\xff\xff\xff")
    for command in ("predict", "plan", "optimize"):
        assert "cannot load it" in refused(capsys, command, str(broken))
    whole = Path(saved)
    short = tmp_path / "short"
    short.mkdir()
    data = (whole / "saved_model.pb").read_bytes()
    (short / "saved_model.pb").write_bytes(data)  # the variables are gone
    assert "cannot load it" in refused(capsys, "predict", str(short), "--bind", "batch=2")
    custom = tmp_path / "custom"
    custom.mkdir()
    (custom / "variables").mkdir()
    for file in (whole / "variables").iterdir():
        (custom / "variables" / file.name).write_bytes(file.read_bytes())
    (custom / "saved_model.pb").write_bytes(data.replace(b"TensorListStack", b"TensorListStuck"))
    assert "TensorListStuck" in refused(capsys, "predict", str(custom))
    (tmp_path / "no.keras").write_bytes(b"PK\x03\x04 nothing")
    assert "no.keras" in refused(capsys, "predict", str(tmp_path / "no.keras"))


ODD = """
import tensorflow as tf
X = tf.TensorSpec((None, 4))
def raises():
    def model(x):
        raise RuntimeError("no such layer")
    return model, X
def random():
    return tf.function(lambda x: x + tf.random.normal(tf.shape(x))), X
def part():
    return tf.function(lambda x: x[: tf.cast(x[0, 0], tf.int32)] * 2.0), X
def complex():
    return tf.function(lambda x: tf.signal.fft(tf.cast(x, tf.complex64))), X
"""


def test_odd_models(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "odd_steps.py"
    file.write_text(ODD)
    said = refused(capsys, "predict", f"{file}:raises")
    assert "RuntimeError: no such layer" in said
    assert f"{file}:6" in said
    assert "random numbers" in refused(capsys, "optimize", f"{file}:random")
    assert main(["optimize", f"{file}:random", "--no-verify"]) == 0
    assert predict(f"{file}:part", bound={"batch": 100}).peak.live >= 2 * 100 * 4 * 4  # at most all rows
    assert optimize(f"{file}:complex").max_error == 0


def test_an_operator_without_sizes(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "opaque.py"
    file.write_text(
        "import tensorflow as tf\n"
        "def step():\n"
        "    return tf.function(lambda x: tf.numpy_function(lambda v: v, [x], tf.float32)), tf.TensorSpec((2, 3))\n"
    )
    assert "PyFunc" in refused(capsys, "predict", f"{file}:step")


def test_tensorflow_that_is_not_installed(saved: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert "memfit[tensorflow]" in refused(capsys, "predict", saved)


def test_a_loop_in_the_form_of_tensorflow_1_is_refused() -> None:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = tf.function(loop).get_concrete_function(tf.TensorSpec((4, 8), tf.float32))
    lowered = convert_variables_to_constants_v2(function)  # Enter, Merge, Switch, NextIteration, Exit: a cycle
    with pytest.raises(TargetError, match="TensorFlow 1"):
        capture(lowered, "tried")
    kept = convert_variables_to_constants_v2(function, lower_control_flow=False)
    assert with_sizes(capture(kept, "tried")).program.node_count > 0
