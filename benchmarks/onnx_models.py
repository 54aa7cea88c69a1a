"""The models of the ONNX benchmarks: transformers architectures exported from configs, zoo topologies that onnx ships.

Weights are random: memory and operations depend on shapes. Exports are kept in a folder, since one takes up to half a minute.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, SEQUENCE = 8, 64
ZOO = ("resnet50", "densenet121", "inception_v2")


def builders() -> dict[str, Callable[[], Any]]:
    """Name -> what makes the torch module, six layers each."""
    import transformers as t

    return {
        "bert": lambda: t.BertModel(
            t.BertConfig(num_hidden_layers=6, hidden_size=384, intermediate_size=1536, num_attention_heads=6)
        ),
        "llama": lambda: t.LlamaForCausalLM(
            t.LlamaConfig(
                num_hidden_layers=6,
                hidden_size=256,
                intermediate_size=688,
                num_attention_heads=8,
                num_key_value_heads=4,
            )
        ),
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(n_layer=6, n_embd=384, n_head=6)),
        "mobilenetv2": lambda: t.MobileNetV2ForImageClassification(t.MobileNetV2Config()),
        "t5": lambda: t.T5EncoderModel(t.T5Config(num_layers=6)),
    }


def export(
    module: Any, path: Path, *, image: int = 0, batch_size: int = BATCH, length: int = SEQUENCE, tokens: int = 1000
) -> None:
    """Write a module as ONNX with open batch (and sequence); ``image``: side of the images that it takes, 0 for token ids."""
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = module.eval()

        def forward(self, x: Any, mask: Any = None) -> Any:
            if mask is None:
                return self.m(pixel_values=x).logits
            extra = (
                {"use_cache": False} if "CausalLM" in type(self.m).__name__ or "LMHead" in type(self.m).__name__ else {}
            )
            out = self.m(input_ids=x, attention_mask=mask, **extra)
            return out.logits if hasattr(out, "logits") else out.last_hidden_state

    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("seq")
    if image:
        arguments: tuple[Any, ...] = (torch.randn(batch_size, 3, image, image),)
        names, shapes = ["x"], {"x": {0: batch}}
    else:
        ids = torch.randint(2, tokens, (batch_size, length))
        arguments = (ids, torch.ones(batch_size, length, dtype=torch.long))
        names, shapes = ["x", "mask"], {"x": {0: batch, 1: sequence}, "mask": {0: batch, 1: sequence}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Wrapped(), arguments, dynamo=True, dynamic_shapes=shapes, input_names=names, optimize=False, verbose=False
        )
    program.save(str(path))


def models(folder: Path, wanted: list[str] | None = None) -> dict[str, Path]:
    """Name -> file, exported where the folder does not have it yet."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in ["bert", "llama", "gpt2", "mobilenetv2", "t5"]:
        if wanted and name not in wanted:
            continue
        path = folder / f"{name}.onnx"
        if not path.exists():
            import torch

            torch.manual_seed(0)
            print(f"exporting {name}", file=sys.stderr, flush=True)
            export(builders()[name](), path, image=224 if name == "mobilenetv2" else 0)
        found[name] = path
    data = Path(os.path.dirname(onnx.__file__)) / "backend" / "test" / "data" / "light"
    found.update({name: data / f"light_{name}.onnx" for name in ZOO if not wanted or name in wanted})
    return found
