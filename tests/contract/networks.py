"""Two networks in every framework, for the suite of front ends: capture -> apply must give back what the framework computes.

turns    values made twice, then a product in a loop (PyTorch exports its loop unrolled)
vision   convolution, normalisation at inference, a way around them, a mean, a branch on a value
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

NETWORKS = ("turns", "vision")
WIDTH = 8
SIDE = 6
CHANNELS, MAPS = 2, 4


def sample_shape(network: str, *, channels_last: bool) -> tuple[int, ...]:
    """The shape of one row of the input."""
    if network == "turns":
        return (WIDTH,)
    return (SIDE, SIDE, CHANNELS) if channels_last else (CHANNELS, SIDE, SIDE)


def weights() -> dict[str, Any]:
    """float32 arrays: products, convolutions as (out, in, height, width), what normalises."""
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return (generator.standard_normal(shape) / 3).astype(np.float32)

    def positive() -> Any:
        return generator.uniform(0.5, 1.5, MAPS).astype(np.float32)

    return {
        "first": normal(WIDTH, WIDTH), "second": normal(WIDTH, WIDTH), "wide": normal(MAPS, CHANNELS, 3, 3),
        "around": normal(MAPS, CHANNELS, 1, 1), "bias": normal(MAPS), "scale": positive(), "shift": normal(MAPS),
        "mean": normal(MAPS), "variance": positive(),
    }  # fmt: skip


def onnx_model(network: str) -> Any:
    """A ModelProto."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    turns = f"""(float[batch, {WIDTH}] x) => (float[batch, {WIDTH}] y)
    {{
        one = MatMul(x, first)
        a = Relu(one)
        b = Relu(one)
        both = Add(a, b)
        turns = Constant <value = int64 {{3}}> ()
        go = Constant <value = bool {{1}}> ()
        y = Loop(turns, go, both) <body = turn (int64 i, bool c, float[batch, {WIDTH}] s) => (bool d, float[batch, {WIDTH}] t)
        {{
            d = Identity(c)
            p = MatMul(s, second)
            t = Tanh(p)
        }}>
    }}"""
    vision = f"""(float[batch, {CHANNELS}, {SIDE}, {SIDE}] x) => (float[batch, {MAPS}] y)
    {{
        wider = Conv <pads = [1, 1, 1, 1]> (x, wide, bias)
        normal = BatchNormalization(wider, scale, shift, mean, variance)
        positive = Relu(normal)
        beside = Conv(x, around)
        both = Add(positive, beside)
        means = ReduceMean <axes = [2, 3], keepdims = 0> (both)
        zero = Constant <value = float {{0}}> ()
        total = ReduceSum <keepdims = 0> (means)
        above = Greater(total, zero)
        y = If(above) <
            then_branch = above () => (float[batch, {MAPS}] u) {{ u = Add(means, means) }},
            else_branch = below () => (float[batch, {MAPS}] v) {{ v = Neg(means) }}
        >
    }}"""
    text = {"turns": turns, "vision": vision}[network]
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {network} {text}')
    read = {name for node in model.graph.node for name in node.input}
    read |= {"second"} if network == "turns" else set()
    for name, array in weights().items():
        if name in read:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def tensorflow_module(network: str) -> Any:
    """A tf.Module whose call has an open batch."""
    import tensorflow as tf

    w = {name: tf.constant(array) for name, array in weights().items()}
    kernels = {name: tf.transpose(w[name], [2, 3, 1, 0]) for name in ("wide", "around")}

    def turns(x: Any) -> Any:
        one = x @ w["first"]
        both = tf.nn.relu(one) + tf.nn.relu(one)
        return tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, tf.tanh(s @ w["second"])), (0, both))[1]

    def vision(x: Any) -> Any:
        wider = tf.nn.conv2d(x, kernels["wide"], 1, "SAME") + w["bias"]
        normal, _, _ = tf.compat.v1.nn.fused_batch_norm(
            wider, w["scale"], w["shift"], w["mean"], w["variance"], is_training=False
        )
        means = tf.reduce_mean(tf.nn.relu(normal) + tf.nn.conv2d(x, kernels["around"], 1, "SAME"), [1, 2])
        return tf.cond(tf.reduce_sum(means) > 0, lambda: means + means, lambda: -means)

    body = {"turns": turns, "vision": vision}[network]

    class Network(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, *sample_shape(network, channels_last=True)))])
        def __call__(self, x: Any) -> Any:
            return body(x)

    return Network()


def keras_model(network: str) -> Any:
    """A Keras model; the one of turns has a recurrent layer for its loop."""
    import keras

    given = keras.Input(sample_shape(network, channels_last=True))
    if network == "turns":
        x = keras.layers.Dense(WIDTH, activation="relu")(given)
        made = keras.Model(given, keras.layers.SimpleRNN(WIDTH)(keras.layers.Reshape((4, 2))(x)))
    else:
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(MAPS, 3, padding="same")(given))
        x = keras.layers.ReLU()(x) + keras.layers.Conv2D(MAPS, 1, use_bias=False)(given)
        made = keras.Model(given, keras.layers.GlobalAveragePooling2D()(x))
    generator = np.random.default_rng(0)
    for weight in made.weights:
        weight.assign(generator.uniform(0.2, 0.8, weight.shape))
    return made


def jax_function(network: str) -> Any:
    """A function of one array."""
    import jax

    w = weights()

    def turns(x: Any) -> Any:
        one = x @ w["first"]
        both = jax.nn.relu(one) + jax.nn.relu(one)
        return jax.lax.fori_loop(0, 3, lambda i, s: jax.numpy.tanh(s @ w["second"]), both)

    def convolved(x: Any, name: str) -> Any:
        forms = ("NHWC", "OIHW", "NHWC")
        return jax.lax.conv_general_dilated(x, w[name], (1, 1), "SAME", dimension_numbers=forms)

    def vision(x: Any) -> Any:
        wider = convolved(x, "wide") + w["bias"]
        normal = (wider - w["mean"]) / jax.numpy.sqrt(w["variance"] + 1e-5) * w["scale"] + w["shift"]
        means = (jax.nn.relu(normal) + convolved(x, "around")).mean((1, 2))
        return jax.lax.cond(means.sum() > 0, lambda m: m + m, lambda m: -m, means)

    return {"turns": turns, "vision": vision}[network]


def torch_module(network: str) -> Any:
    """A module in evaluation mode."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    w = {name: torch.from_numpy(array) for name, array in weights().items()}

    class Turns(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Parameter(w["first"]), torch.nn.Parameter(w["second"])

        def forward(self, x: Any) -> Any:
            one = x @ self.first
            both = torch.relu(one) + torch.relu(one)
            for _ in range(3):
                both = torch.tanh(both @ self.second)
            return both

    class Vision(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = torch.nn.Conv2d(CHANNELS, MAPS, 3, padding=1)
            self.around = torch.nn.Conv2d(CHANNELS, MAPS, 1, bias=False)
            self.norm = torch.nn.BatchNorm2d(MAPS)
            self.wide.weight.data, self.wide.bias.data, self.around.weight.data = w["wide"], w["bias"], w["around"]
            self.norm.weight.data, self.norm.bias.data = w["scale"], w["shift"]
            self.norm.running_mean, self.norm.running_var = w["mean"], w["variance"]

        def forward(self, x: Any) -> Any:
            means = (torch.relu(self.norm(self.wide(x))) + self.around(x)).mean((2, 3))
            return torch.cond(means.sum() > 0, lambda m: m + m, lambda m: -m, (means,))

    return {"turns": Turns, "vision": Vision}[network]().eval()
