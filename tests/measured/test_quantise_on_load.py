"""Quantising a folder as it is read: resident growth of a fresh process against the final size and one layer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

_RUN = """
import json, sys
from pathlib import Path
import numpy, torch
from memfit.frameworks.torch.compressible import layers_of
from memfit.frameworks.torch.model_folder import load_folder, skeleton
from memfit.machine.process import process_bytes
from memfit.passes.formats import FORMATS
from memfit.passes.quantize import quantize

torch.set_num_threads(1)
quantize(numpy.ones((64, 64), numpy.float32), 4, 32)
folder = Path(sys.argv[1])
largest = max(layer.weight.nbytes for layer in layers_of(skeleton(folder)))
Path("/proc/self/clear_refs").write_text("5")
before = process_bytes("VmHWM")
model, _ = load_folder(folder, lambda layer: (FORMATS["int4"], 0.0))
final = sum(tensor.nbytes for tensor in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values())
print(json.dumps([process_bytes("VmHWM") - before, final, largest]))
"""


@pytest.mark.measured
@pytest.mark.skipif(sys.platform != "linux", reason="resident sizes come from /proc")
def test_the_peak_is_the_final_size_and_one_layer(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=2000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=3, num_attention_heads=8
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    done = subprocess.run([sys.executable, "-c", _RUN, str(tmp_path)], capture_output=True, text=True, check=True)
    growth, final, largest = json.loads(done.stdout.strip().splitlines()[-1])
    assert final > 25_000_000
    assert growth <= final + largest
    assert growth >= final  # else the weights were not touched, and this measured nothing
