"""A language model of more than 2 GiB under a hard limit of 1 GiB, and the same model without a limit: the same bits.

    python examples/larger_than_memory.py            writes the model (random weights, seed 0) once, then runs both
    python examples/larger_than_memory.py --layers 4 --hidden 512 --limit 640MiB --budget 32MiB      a small one

The limit is RLIMIT_DATA: it counts all private memory that can be written (heap, tensors, thread stacks, the frames of the
weights), so an allocation beyond it fails. Pages of mapped files and the page cache count for no process limit of Linux but
for a cgroup's; the weights are not mapped here but read into frames, so what they need is in what is limited.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from memfit.units import format_bytes, parse_bytes

SEED = 0
REFERENCE = """
import sys, torch, transformers
from memfit.frameworks.torch.paged_run import _prompt_inputs, fingerprint
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
inputs = _prompt_inputs(model, sys.argv[1], None, int(sys.argv[2]))
with torch.no_grad():
    if int(sys.argv[3]):
        new = int(sys.argv[3])
        output = model.generate(inputs["input_ids"], max_new_tokens=new, min_new_tokens=new, do_sample=False)
    else:
        output = model(**inputs)
print(fingerprint(output))
"""


def write_model(folder: Path, layers: int, hidden: int, vocabulary: int) -> int:
    """Write config.json and model.safetensors, one tensor in memory at a time; returns the bytes of the weights."""
    import torch
    import transformers

    from memfit.frameworks.torch.paged_model import without_memory

    config = transformers.LlamaConfig(
        hidden_size=hidden, intermediate_size=hidden * 11 // 4 // 64 * 64, num_hidden_layers=layers, vocab_size=vocabulary,
        num_attention_heads=hidden // 64, max_position_embeddings=2048, architectures=["LlamaForCausalLM"], dtype="float32",
    )  # fmt: skip
    with without_memory():
        model = transformers.LlamaForCausalLM(config)
    header, reached = {}, 0
    for name, parameter in model.named_parameters():
        end = reached + parameter.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(parameter.shape), "data_offsets": [reached, end]}
        reached = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(SEED)
    with open(folder / "model.safetensors.part", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for parameter in model.parameters():
            values = torch.ones(parameter.shape)
            if parameter.dim() > 1:
                values.normal_(0.0, 0.02, generator=draw)
            file.write(memoryview(values.numpy()).cast("B"))
            del values
        file.flush()
        os.fsync(file.fileno())
    os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
    config.save_pretrained(folder)
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="larger-than-memory")
    parser.add_argument("--layers", type=int, default=11)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--limit", default="1GiB", help="RLIMIT_DATA of the paged run")
    parser.add_argument("--budget", default="512MiB")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=4)
    options = parser.parse_args()
    folder = Path(options.folder)
    if not (folder / "model.safetensors").exists():
        nbytes = write_model(folder, options.layers, options.hidden, options.vocabulary)
        print(f"wrote {format_bytes(nbytes)} of weights (seed {SEED}) to {folder}")
    limit = parse_bytes(options.limit)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    paged = subprocess.run(
        [sys.executable, "-m", "memfit.cli.main", "run", str(folder), "--budget", options.budget, "--json",
         "--tokens", str(options.tokens), "--new-tokens", str(options.new_tokens)],
        env=environment, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    if paged.returncode:
        return paged.returncode
    report = json.loads(paged.stdout)
    measured = report["measured"]
    print(
        f"paged: {format_bytes(report['weights'])} of weights, limit {options.limit}, budget {options.budget}; "
        f"peak projected {format_bytes(report['projected']['peak'])}, measured {format_bytes(measured['peak'])}; "
        f"private memory grew by {format_bytes(measured['private'])}; hits {100 * measured['hit_rate']:.1f} %"
    )
    arguments = [str(folder), str(options.tokens), str(options.new_tokens)]
    whole = subprocess.run(
        [sys.executable, "-c", REFERENCE, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    same = whole.stdout.strip() == report["output_sha256"]
    print(f"in memory, no limit: {'the same bits' if same else 'OTHER BITS'} ({report['output_sha256'][:16]})")
    limited = subprocess.run(
        [sys.executable, "-c", REFERENCE, *arguments], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    print(f"in memory, under the limit: {'fails' if limited.returncode else 'runs too'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
