"""The arena's step beside the eager program: bits, allocations, bytes and time, for models of many architectures.

    python benchmarks/arena.py [--models gpt2,bert] [--pairs 15] [--threads 1]

Each model runs in a process of its own. Bytes and allocations come from the allocator hook, eager's and the arena's in
the same way: blocks handed out in a step, and the peak of the live bytes over what lives before the step. Times are CPU
seconds of pairs of steps in turn, eager then arena; the ratio is the median of the pairs' ratios. Parameters are random.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from record import write


def _ids(vocabulary: int, batch: int, length: int) -> Any:
    import torch

    return {"input_ids": torch.randint(3, vocabulary, (batch, length))}


def _image(batch: int, size: int) -> Any:
    import torch

    return {"pixel_values": torch.randn(batch, 3, size, size)}


def _models() -> dict[str, Callable[[], tuple[Any, Any]]]:
    import transformers as tf

    width: dict[str, Any] = {
        "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536
    }  # fmt: skip
    return {
        "gpt2": lambda: (
            tf.GPT2LMHeadModel(
                tf.GPT2Config(
                    vocab_size=8192, n_embd=384, n_layer=6, n_head=6, use_cache=False, bos_token_id=0, eos_token_id=0
                )
            ),
            _ids(8192, 4, 256),
        ),
        "bert": lambda: (tf.BertForMaskedLM(tf.BertConfig(vocab_size=8192, **width)), _ids(8192, 8, 128)),
        "vit": lambda: (
            tf.ViTForImageClassification(tf.ViTConfig(image_size=224, patch_size=16, **width)),
            _image(4, 224),
        ),
        "t5": lambda: (
            tf.T5EncoderModel(tf.T5Config(vocab_size=8192, d_model=384, d_kv=64, d_ff=1536, num_layers=6, num_heads=6)),
            _ids(8192, 4, 256),
        ),
        "llama": lambda: (
            tf.LlamaForCausalLM(tf.LlamaConfig(vocab_size=8192, num_key_value_heads=2, use_cache=False, **width)),
            _ids(8192, 4, 256),
        ),
        "mixtral": lambda: (
            tf.MixtralForCausalLM(
                tf.MixtralConfig(
                    vocab_size=8192, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                    intermediate_size=512, num_local_experts=4, use_cache=False,
                )
            ),
            _ids(8192, 2, 128),
        ),
        "whisper encoder": lambda: (
            tf.models.whisper.modeling_whisper.WhisperEncoder(
                tf.WhisperConfig(
                    d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, num_mel_bins=80
                )
            ),
            {"input_features": __import__("torch").randn(1, 80, 3000)},
        ),
        "resnet50": lambda: (tf.ResNetForImageClassification(tf.ResNetConfig()), _image(4, 224)),
        "convnext": lambda: (tf.ConvNextForImageClassification(tf.ConvNextConfig()), _image(2, 224)),
        "swin": lambda: (
            tf.SwinForImageClassification(
                tf.SwinConfig(image_size=224, embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24])
            ),
            _image(2, 224),
        ),
        "gpt2 decoding": lambda: (
            tf.GPT2LMHeadModel(
                tf.GPT2Config(
                    vocab_size=8192, n_embd=384, n_layer=6, n_head=6, use_cache=False, bos_token_id=0, eos_token_id=0
                )
            ),
            _ids(8192, 1, 1),
        ),
    }  # fmt: skip


def _allocations(hook: Any, run: Callable[[], Any]) -> tuple[int, int]:
    """Blocks handed out while ``run`` ran, and the peak of live bytes over those before."""
    hook.start_recording(operations=False)
    hook.mark("here")
    hook.reset_peak()
    before = hook.live_bytes()
    run()
    peak = hook.peak_bytes() - before
    found = hook.stop_recording()
    return int((found.delta[int(found.mark_event[0]) :] > 0).sum()), peak


def one(name: str, pairs: int, threads: int) -> dict[str, Any]:
    """One model, in this process."""
    import torch

    import memfit
    from memfit.frameworks.torch import allocator_hook as hook
    from memfit.frameworks.torch.arena_rehearsal import same_bits
    from memfit.frameworks.torch.output_form import taken_apart

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, inputs = _models()[name]()
    model.eval()
    hook.install()
    begun = time.perf_counter()
    fast = memfit.arena(model, inputs)
    build = time.perf_counter() - begun

    def eager() -> Any:
        with torch.no_grad():
            return model(**inputs)

    def arena() -> Any:
        return fast(**inputs)

    wanted, got = taken_apart(eager())[0], taken_apart(arena())[0]
    equal = len(wanted) == len(got) and all(
        same_bits(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(wanted, got, strict=True)
    )
    del wanted, got
    counts = {"eager": _allocations(hook, eager), "arena": _allocations(hook, arena)}
    hook.uninstall()
    seconds: dict[str, list[float]] = {"eager": [], "arena": []}
    for _ in range(pairs):
        for kind, run in (("eager", eager), ("arena", arena)):
            start = time.process_time()
            run()
            seconds[kind].append(time.process_time() - start)
    ratios = [b / a for a, b in zip(seconds["eager"], seconds["arena"], strict=True)]
    report = fast.report
    return {
        "model": name, "parameters": sum(p.numel() for p in model.parameters()), "equal_bits": equal,
        "allocations": {kind: count for kind, (count, _) in counts.items()},
        "peak_live_bytes_over_start": {kind: peak for kind, (_, peak) in counts.items()},
        "arena_bytes": report.arena, "lower_bound": report.lower_bound, "sum_of_buffers": report.sum,
        "buffers": report.buffers, "strategy": report.strategy, "forms": report.forms, "missed": fast.missed,
        "build_seconds": build,
        "cpu_seconds": {
            kind: {"median": statistics.median(rows), "least": min(rows)} for kind, rows in seconds.items()
        },
        "arena_over_eager": {
            "median": statistics.median(ratios), "low": sorted(ratios)[len(ratios) // 4],
            "high": sorted(ratios)[3 * len(ratios) // 4],
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", default="")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.pairs, given.threads)))
        return
    rows = []
    for name in given.models.split(",") if given.models else _models():
        command = [
            sys.executable,
            __file__,
            "--one",
            name,
            "--pairs",
            str(given.pairs),
            "--threads",
            str(given.threads),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            print(f"{name}: failed: {done.stderr.strip().splitlines()[-1][:300]}")
            rows.append({"model": name, "error": done.stderr.strip().splitlines()[-1][:300]})
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{name:16} equal {row['equal_bits']!s:5} allocations {row['allocations']['eager']:5} -> "
            f"{row['allocations']['arena']}  peak {row['peak_live_bytes_over_start']['eager'] / 2**20:7.1f} -> "
            f"{row['arena_bytes'] / 2**20:7.1f} MiB (bound {row['lower_bound'] / 2**20:7.1f})  "
            f"time {row['arena_over_eager']['median']:.3f}x"
        )
    if not given.models:
        write("arena", {"pairs": given.pairs, "threads": given.threads, "models": rows})


if __name__ == "__main__":
    main()
