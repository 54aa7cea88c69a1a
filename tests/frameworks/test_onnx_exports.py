"""Transformers architectures as PyTorch's exporter writes them: sized without the exporter's own hints, smaller, equal.

More of them: benchmarks/onnx_architectures.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from memfit.frameworks.onnx import optimizing
from memfit.frameworks.onnx.running import compare
from memfit.frameworks.onnx.writing import write_model
from memfit.ir.program import programs
from memfit.passes.exact import SLACK, totals

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs onnxscript")

BUILDERS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=2000)
    ),
}


class Wrapped(torch.nn.Module):
    """Token ids and a mask in, one tensor out."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any, mask: Any) -> Any:
        """The logits, or the last hidden state."""
        out = self.inner(input_ids=x, attention_mask=mask)
        return out.logits if hasattr(out, "logits") else out.last_hidden_state


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_an_exported_architecture_is_sized_and_shrinks_to_an_equal_model(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = BUILDERS[name]().eval()
    with torch.no_grad():
        for parameter in module.parameters():  # no weight stays 0 or 1, so that nothing hides a wrong rewrite
            parameter.add_(torch.randn_like(parameter) * 0.05)
    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("seq")
    shapes = {"x": {0: batch, 1: sequence}, "mask": {0: batch, 1: sequence}}
    arguments = (torch.randint(2, 290, (2, 12)), torch.ones(2, 12, dtype=torch.long))
    path, new = tmp_path / "model.onnx", tmp_path / "new.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            Wrapped(module), arguments, dynamo=True, dynamic_shapes=shapes, input_names=["x", "mask"], optimize=False,
            verbose=False,
        )  # fmt: skip
    model = exported.model_proto
    del model.graph.value_info[:]
    path.write_bytes(model.SerializeToString())
    found = optimizing.smaller(path)
    before, after = found.captured.program, found.optimized.program
    assert all(p.types[n].known for p in programs(before) for op in p.operations for n in op.outputs if n)
    assert before.dimensions == ("batch", "seq")
    assert "." not in "".join(str(given) for given in before.types.values())  # nothing depends on data here
    write_model(after, found.captured.weights, new)
    compared = compare(before, (str(path), str(new)), {}, sizes=(2, 7))
    assert compared.max_error < 2e-6
    assert len(compared.sizes) == 2
    assert after.node_count < 0.6 * before.node_count
    assert all(a <= b + SLACK for a, b in zip(totals(after, {}), totals(before, {}), strict=True))
    assert after.constant_bytes < 1.05 * before.constant_bytes  # the tied embedding is still held once
    assert totals(after, {})[0] < totals(before, {})[0] - 2000 * 32 * 4 // 2
