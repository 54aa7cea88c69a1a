"""Record memory snapshots of eight training runs on a GPU, and check memfit's replay against every address in them.

    python examples/record_snapshots.py --out snapshots

One command, about a minute: each run is a fresh process with its own PYTORCH_ALLOC_CONF and writes ``NAME.pickle.gz``, a
snapshot of torch.cuda.memory with two facts beside it that torch leaves out: the device's bytes and the memory fraction.
``memfit replay NAME.pickle.gz`` reads it; this script ends by checking all of them itself. Stacks are not recorded, so
that nothing of a program but sizes, addresses and streams is in the files.
"""

from __future__ import annotations

import argparse
import gzip
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

# name: (PYTORCH_ALLOC_CONF, bytes the process may have in GiB or None, what is special)
RUNS: dict[str, tuple[str, float | None, str]] = {
    "fixed": ("", None, "one shape"),
    "variable": ("", None, "shapes drawn anew each step"),
    "short-of-memory": ("", 2.0, "variable shapes, on little memory"),
    "expandable": ("expandable_segments:True", 2.0, "variable shapes, segments that grow"),
    "max-split": ("max_split_size_mb:64", 2.0, "variable shapes, large blocks stay whole"),
    "streams": ("", None, "tensors that cross to two other streams"),
    "graph": ("", None, "steps captured in a CUDA graph, its private pool"),
    "garbage": ("garbage_collection_threshold:0.5", 2.0, "variable shapes, cached memory given back early"),
}


def model_and_optimizer(torch: Any, device: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.1, batch_first=True, norm_first=True)
    body = torch.nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    model = torch.nn.Sequential(torch.nn.Embedding(8000, 512), body, torch.nn.Linear(512, 8000)).to(device)
    return model, torch.optim.AdamW(model.parameters(), capturable=device == "cuda")


def step(torch: Any, model: Any, optimizer: Any, tokens: Any) -> None:
    loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train(torch: Any, name: str, device: str, steps: int) -> None:
    """The program of one run."""
    model, optimizer = model_and_optimizer(torch, device)
    drawn = random.Random(0)
    for _ in range(steps):
        shape = (8, 128) if name in ("fixed", "graph") else (drawn.randint(2, 16), drawn.randint(32, 256))
        tokens = torch.randint(8000, shape, device=device)
        step(torch, model, optimizer, tokens)
        if name == "streams":
            cross_streams(torch, drawn)
        del tokens
        if name == "short-of-memory" and drawn.random() < 0.2:
            torch.cuda.empty_cache()
    if name == "graph":
        capture(torch, model, optimizer)


def cross_streams(torch: Any, drawn: random.Random) -> None:
    """Tensors made here and used on two other streams, given back while those still work."""
    sides = [torch.cuda.Stream(), torch.cuda.Stream()]
    held = [torch.ones(drawn.randint(1, 1 << 22), device="cuda") for _ in range(8)]
    for number, tensor in enumerate(held):
        side = sides[number % 2]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            tensor.record_stream(side)
            for _ in range(20):
                tensor = tensor * 1.01
    held.clear()


def capture(torch: Any, model: Any, optimizer: Any) -> None:
    """A step in a CUDA graph, replayed three times."""
    tokens = torch.randint(8000, (8, 128), device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(torch, model, optimizer, tokens)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(torch, model, optimizer, tokens)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()


def record(name: str, out: Path, steps: int) -> None:
    """One run, in this process, whose settings are in its environment."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    room = RUNS[name][1]
    fraction = 1.0 if room is None else room * (1 << 30) / total
    if fraction < 1:
        torch.cuda.set_per_process_memory_fraction(fraction)
    torch.cuda.memory._record_memory_history(enabled="all", context=None, max_entries=5_000_000)
    train(torch, name, "cuda", steps)
    held = torch.cuda.memory._snapshot()
    held["memfit"] = {"device_bytes": [total], "memory_fraction": [fraction], "torch": torch.__version__}
    with gzip.open(out / f"{name}.pickle.gz", "wb") as file:
        pickle.dump(held, file, protocol=4)
    print(f"{name}: {len(held['device_traces'][0])} entries")


def check(out: Path) -> int:
    """Replay all that was recorded; returns how many addresses differ."""
    from memfit.allocators.snapshots import check_addresses, read_snapshot

    differing = 0
    for name in RUNS:
        for snapshot in read_snapshot(out / f"{name}.pickle.gz"):
            found = check_addresses(snapshot)
            differing += found.differing
            print(
                f"{name}: {found.checked} addresses, {found.differing} differ"
                + (f"; first: {found.first}" if found.first else "")
            )
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Record snapshots of training runs on a GPU and check memfit's replay."
    )
    parser.add_argument("--out", type=Path, default=Path("snapshots"))
    parser.add_argument("--steps", type=int, default=12, help="training steps of each run")
    parser.add_argument("--run", choices=RUNS, help="one run, in this process (what the others are started with)")
    given = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("this needs a GPU that torch can use; none was found", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    if given.run:
        record(given.run, given.out, given.steps)
        return 0
    for name, (settings, _, what) in RUNS.items():
        print(f"{name}: {what}")
        subprocess.run(
            [sys.executable, __file__, "--out", str(given.out), "--steps", str(given.steps), "--run", name],
            check=True, env={**os.environ, "PYTORCH_ALLOC_CONF": settings, "PYTORCH_CUDA_ALLOC_CONF": settings},
        )  # fmt: skip
    return 1 if check(given.out) else 0


if __name__ == "__main__":
    sys.exit(main())
