"""Transformers architectures exported to ONNX: is every tensor sized, are optimised outputs equal, are bytes never more.

Small configs, two layers; every weight, bias and statistic is perturbed, so that no identity hides a wrong rewrite. ``onnx``:
tensors that onnx's own shape inference (with data propagation) leaves without a whole shape, of the same graph.

    python benchmarks/onnx_architectures.py --folder FOLDER [--models roberta vit]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
from onnx_models import export

TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 300,
}


def architectures() -> dict[str, tuple[Callable[[], Any], int]]:
    """Name -> (what makes the module, side of its images or 0)."""
    import transformers as t

    gpt2 = {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 300}
    t5 = {"num_layers": 2, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4, "vocab_size": 300}
    opt = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 128, "vocab_size": 300}
    vit = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "patch_size": 8,
    }
    swin = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "patch_size": 4, "window_size": 4}
    return {
        "roberta": (lambda: t.RobertaModel(t.RobertaConfig(**TEXT)), 0),
        "distilbert": (
            lambda: t.DistilBertModel(t.DistilBertConfig(dim=64, n_layers=2, n_heads=4, hidden_dim=128, vocab_size=300)), 0,
        ),
        "albert": (lambda: t.AlbertModel(t.AlbertConfig(**TEXT, embedding_size=32)), 0),
        "gpt2": (lambda: t.GPT2LMHeadModel(t.GPT2Config(**gpt2)), 0),
        "gpt_neox": (lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**TEXT)), 0),
        "opt": (lambda: t.OPTForCausalLM(t.OPTConfig(**opt, word_embed_proj_dim=64)), 0),
        "llama": (lambda: t.LlamaForCausalLM(t.LlamaConfig(**TEXT, num_key_value_heads=2)), 0),
        "qwen2": (lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**TEXT, num_key_value_heads=2)), 0),
        "mistral": (lambda: t.MistralForCausalLM(t.MistralConfig(**TEXT, num_key_value_heads=2, sliding_window=16)), 0),
        "gemma": (lambda: t.GemmaForCausalLM(t.GemmaConfig(**TEXT, num_key_value_heads=1, head_dim=16)), 0),
        "phi": (lambda: t.PhiForCausalLM(t.PhiConfig(**TEXT)), 0),
        "t5": (lambda: t.T5EncoderModel(t.T5Config(**t5)), 0),
        "vit": (lambda: t.ViTModel(t.ViTConfig(**vit, image_size=32)), 32),
        "resnet": (
            lambda: t.ResNetForImageClassification(
                t.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], layer_type="basic")
            ), 32,
        ),
        "mobilenetv2": (lambda: t.MobileNetV2ForImageClassification(t.MobileNetV2Config(image_size=32)), 32),
        "convnext": (lambda: t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[16, 32, 32, 32], depths=[1, 1, 1, 1])), 32),
        "swin": (lambda: t.SwinModel(t.SwinConfig(**swin, image_size=32)), 32),
    }  # fmt: skip


def perturbed(module: Any) -> Any:
    """No weight stays 0 or 1."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.add_(torch.rand_like(buffer))
            if name.endswith("running_mean"):
                buffer.add_(torch.randn_like(buffer) * 0.1)
    return module


def holes(path: Path) -> tuple[int, int]:
    """(tensors that nodes make, how many onnx leaves without a whole shape)."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True)
    known = {v.name: v.type for v in (*inferred.graph.value_info, *inferred.graph.output)}
    made = [name for node in inferred.graph.node if node.op_type != "Constant" for name in node.output if name]

    def whole(name: str) -> bool:
        if name not in known or not known[name].HasField("tensor_type"):
            return name in known and known[name].HasField("sequence_type")
        tensor = known[name].tensor_type
        return tensor.HasField("shape") and all(
            d.HasField("dim_value") or (d.dim_param and not d.dim_param.startswith("unk__")) for d in tensor.shape.dim
        )

    return len(made), sum(not whole(name) for name in made)


def one(path: Path) -> dict[str, Any]:
    """Everything about one exported file."""
    import onnx

    from memfit.frameworks.onnx import optimizing
    from memfit.frameworks.onnx.running import compare
    from memfit.frameworks.onnx.writing import write_model
    from memfit.ir.program import programs
    from memfit.passes.exact import SLACK, totals

    # The file's own value_info comes from the exporter: without it, both sides infer.
    bare = onnx.load(str(path))
    del bare.graph.value_info[:]
    stripped = path.with_name(path.stem + "-bare.onnx")
    onnx.save(bare, str(stripped))
    begun = time.process_time()
    found = optimizing.smaller(stripped)
    seconds = time.process_time() - begun
    before, after = found.captured.program, found.optimized.program
    unknown = sum(
        not inner.types[name].known
        for inner in programs(before)
        for op in inner.operations
        for name in op.outputs
        if name
    )
    output = path.with_name(path.stem + "-memfit.onnx")
    write_model(after, found.captured.weights, output)
    compared = compare(before, (str(path), str(output)), {}, sizes=(2, 7))
    first, last = totals(before, {}), totals(after, {})
    tensors, left = holes(stripped)
    return {
        "tensors": tensors, "unknown_onnx": left, "unknown_memfit": unknown, "nodes": [before.node_count, after.node_count],
        "max_error": compared.max_error, "totals_before": first, "totals_after": last,
        "raised": any(a > b + SLACK for a, b in zip(last, first, strict=True)), "cpu_seconds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/memfit-onnx"))
    parser.add_argument("--models", nargs="*")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for name, (build, image) in architectures().items():
        if arguments.models and name not in arguments.models:
            continue
        path = arguments.folder / f"small-{name}.onnx"
        try:
            if not path.exists():
                import torch

                torch.manual_seed(0)
                export(perturbed(build().eval()), path, image=image, batch_size=2, length=12, tokens=290)
            results[name] = one(path)
        except Exception as error:
            results[name] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        print(name, results[name], file=sys.stderr, flush=True)
        record.write("onnx-architectures", {"models": results})


if __name__ == "__main__":
    main()
