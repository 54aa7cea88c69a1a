"""Small models to compress: a transformer with tied embeddings, a multilayer perceptron, convolutions only."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn


def gpt2(hidden: int = 64) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=200, n_positions=32, n_embd=hidden, n_layer=2, n_head=2))
    return model.eval(), {"input_ids": torch.randint(0, 200, (2, 16), generator=torch.Generator().manual_seed(1))}


def bert() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=32,
    )  # fmt: skip
    return BertModel(config).eval(), {
        "input_ids": torch.randint(0, 300, (2, 16), generator=torch.Generator().manual_seed(1))
    }


def perceptron() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.BatchNorm1d(128), nn.Linear(128, 10))
    return model.eval(), torch.randn(32, 64)


def half_perceptron() -> tuple[nn.Module, torch.Tensor]:
    model, x = perceptron()
    return model.bfloat16(), x.bfloat16()


def encoder() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval(), torch.randn(2, 6, 32)


def convolutions() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.randn(1, 1, 8, 8)


def not_finite() -> tuple[nn.Module, torch.Tensor]:
    model = nn.Sequential(nn.Linear(8, 8))
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    return model, torch.zeros(1, 8)


def no_inputs() -> tuple[nn.Module, tuple[()]]:
    return nn.Linear(4, 4), ()


def bert_inputs() -> dict[str, torch.Tensor]:
    return bert()[1]


def mean_output(model: nn.Module) -> float:
    with torch.no_grad():
        return float(model(perceptron()[1]).mean())


def save_onnx(path: Path, inner: int = 128) -> dict[str, object]:
    """A model of two products and a Gemm; returns an input batch."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {
        "a": random.normal(size=(64, inner)).astype(np.float32), "b": random.normal(size=(inner, 64)).astype(np.float32),
        "c": random.normal(size=(64, 32)).astype(np.float32), "d": random.normal(size=32).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["s"], "second"),
        helper.make_node("Gemm", ["s", "c", "d"], ["y"], "third"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return {"x": random.normal(size=(16, 64)).astype(np.float32)}
