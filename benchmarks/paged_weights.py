"""Paged weights against the bound, against reading alone, and against accelerate's disk offload, in one run.

One language model (random weights, seed 0), one thread of computing. Each round times one pass of: the model in memory; the
model paged at 80 % and at 50 % of its weights; accelerate's ``disk_offload`` of the same model. ``warm``: every file is in
the page cache; ``cold``: none is when a pass begins. Reading alone is the same chunks by the same reader, nothing computed.

    python benchmarks/paged_weights.py [--rounds 5]

Expected before the first run: hits within a point of the bound at both sizes; warm, time of a pass is that of computing
(reading hides); cold, where the disk is slower than computing, that of reading; accelerate reads all, one weight after the
other, and computes in between, so 1.5x or more warm, and cold (reading all) / (reading the missing) and more.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import memfit
from memfit.frameworks.torch.paged_run import fingerprint
from memfit.paging.accesses import accesses_of
from memfit.paging.policies import POLICIES
from memfit.runtime.weight_file import WeightFiles
from memfit.runtime.weight_plan import with_libraries

sys.path.insert(0, str(Path(__file__).parent))
import record

SHARES = (0.8, 0.5)
TOKENS = {"prompt": 96, "token": 1}
"""Tokens of a pass: a prompt computes, a token mostly reads."""


def build(folder: Path, layers: int) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=768, intermediate_size=2112, num_hidden_layers=layers, vocab_size=8192, num_attention_heads=12,
        max_position_embeddings=512,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    os.sync()
    return model


def cache_of(paths: list[Path], *, warm: bool) -> None:
    """Bring the files into the page cache, or out of it."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        if warm:
            while os.read(descriptor, 1 << 22):
                pass
        else:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and process CPU seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def page(folder: Path, share: float) -> Any:
    total = memfit.paged(folder, budget="64GiB", tokens=TOKENS["prompt"])
    plan = total.memfit_paging.plan
    total.memfit_paging.close()
    budget = with_libraries(int(share * plan.weights) + plan.live + plan.buffer)
    return memfit.paged(folder, budget=budget, tokens=TOKENS["prompt"])


def reading_alone(folder: Path, paging: Any) -> Callable[[], None]:
    plan = paging.plan
    chunks = plan.schedule.chunk[plan.schedule.read].tolist()
    target = memoryview(bytearray(plan.layout.chunk_bytes))
    files = WeightFiles(folder)

    def read() -> None:
        for chunk in chunks:
            for piece in plan.layout.pieces(chunk):
                files.read_into(target[piece.begin : piece.begin + piece.nbytes], piece.file, piece.offset)

    return read


def lru_hits(plan: Any) -> float:
    """What LRU finds of the same chunks in a steady pass (the last of eight)."""
    touched = plan.schedule.chunk[plan.schedule.fresh]
    trace = accesses_of(list(touched) * 8)
    hit = POLICIES["lru"].misses(trace, plan.frames, flags=True).hit
    return float(hit[-len(touched) :].mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="memfit-paged-") as temporary:
        folder, offloaded = Path(temporary, "model"), Path(temporary, "offload")
        whole = build(folder, options.layers)
        ids = torch.randint(0, 8192, (1, TOKENS["prompt"]), generator=torch.Generator().manual_seed(0))
        paged = {share: page(folder, share) for share in SHARES}
        peer, peer_version = None, None
        try:
            import accelerate

            peer_version = accelerate.__version__
            peer = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
            peer = accelerate.disk_offload(peer, str(offloaded), execution_device="cpu")
            os.sync()
        except ImportError:
            print("accelerate is not installed: skipped")
        gc.collect()
        now = {"ids": ids}
        models: dict[str, Callable[[], Any]] = {"in memory": lambda: whole(now["ids"])}
        for share in SHARES:
            models[f"paged {share:.0%}"] = lambda share=share: paged[share](now["ids"])
            models[f"reading alone {share:.0%}"] = reading_alone(folder, paged[share].memfit_paging)
        if peer is not None:
            models["accelerate disk_offload"] = lambda: peer(now["ids"])
        result: dict[str, Any] = {"accelerate": peer_version, "rounds": options.rounds, "tokens": TOKENS, "threads": 1}
        with torch.no_grad():
            expected = fingerprint(whole(ids).logits)
            result["bit_exact"] = {f"{s:.0%}": fingerprint(paged[s](ids).logits) == expected for s in SHARES}
            if peer is not None:
                result["bit_exact"]["accelerate"] = fingerprint(peer(ids).logits) == expected
            result["paging"] = paging_of(paged, ids)
            for cache, kind in itertools.product(("warm", "cold"), TOKENS):
                now["ids"] = ids[:, : TOKENS[kind]]
                files = [*folder.glob("*.safetensors"), *offloaded.glob("*.dat")]
                cache_of(files, warm=cache == "warm")
                rows: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
                for _ in range(options.rounds):
                    for name, call in models.items():
                        if cache == "cold":
                            cache_of(files, warm=False)
                        rows[name].append(timed(call))
                result[f"{cache}, {kind}"] = summary(rows)
        for model in paged.values():
            model.memfit_paging.close()
    show(result)
    if options.layers == parser.get_default("layers"):
        record.write("paged-weights", result)


def paging_of(paged: dict[float, Any], ids: torch.Tensor) -> dict[str, Any]:
    found = {}
    for share, model in paged.items():
        paging = model.memfit_paging
        before = paging.counts
        for _ in range(3):
            model(ids)
        counts, plan = paging.counts.since(before), paging.plan
        found[f"{share:.0%}"] = {
            "weights": plan.weights, "frames": plan.frames, "chunk_bytes": plan.layout.chunk_bytes,
            "resident_share": plan.resident_weights / plan.weights, "hits": counts.hit_rate, "planned_hits": plan.hit_rate,
            "bound_belady": plan.hit_bound, "bound_share": plan.frames / plan.layout.chunks, "lru_hits": lru_hits(plan),
        }  # fmt: skip
    return found


def summary(rows: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, times in rows.items():
        wall = [row[0] for row in times]
        found[name] = {"wall": statistics.median(wall), "least": min(wall), "most": max(wall),
                       "cpu": statistics.median(row[1] for row in times)}  # fmt: skip
    for share in SHARES:
        name, alone = f"paged {share:.0%}", f"reading alone {share:.0%}"
        paired = [
            paged[0] / max(whole[0], read[0])
            for paged, whole, read in zip(rows[name], rows["in memory"], rows[alone], strict=True)
        ]
        found[name]["over_the_larger_of_computing_and_reading"] = statistics.median(paired)
        if "accelerate disk_offload" in rows:
            ratio = [a[0] / p[0] for a, p in zip(rows["accelerate disk_offload"], rows[name], strict=True)]
            found[name]["faster_than_accelerate"] = statistics.median(ratio)
    return found


def show(result: dict[str, Any]) -> None:
    for share, row in result["paging"].items():
        print(f"{share}: hits {row['hits']:.2%}, planned {row['planned_hits']:.2%}, bound {row['bound_belady']:.2%} "
              f"(share {row['bound_share']:.2%}), LRU {row['lru_hits']:.2%}")  # fmt: skip
    print("bit exact:", result["bit_exact"])
    for case in (key for key in result if "," in key):
        for name, row in result[case].items():
            more = ", ".join(f"{key} {row[key]:.2f}" for key in row if key not in ("wall", "least", "most", "cpu"))
            print(f"{case:12} {name:26} {row['wall']:.3f} s ({row['least']:.3f}-{row['most']:.3f}), "
                  f"CPU {row['cpu']:.3f} s {more}")  # fmt: skip


if __name__ == "__main__":
    main()
