"""A vision transformer trained on pictures that a hard memory limit does not hold, against the same run from memory.

    python benchmarks/out_of_memory_training.py [STEPS]

*From memory*: all pictures in one tensor, no limit, rows in the loader's order. *Limited*: a control group (version 1) that
kills or refuses beyond LIMIT bytes, page cache included; a ``Loader`` with BUDGET. *From memory, limited*: what the limit
does to the usual way. Losses are compared bit for bit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

PICTURES, SIDE, BATCH = 40_000, 64, 64
LIMIT, BUDGET = 160 << 20, 96 << 20
GROUPS = Path("/sys/fs/cgroup/memory")


def train(folder: str, way: str, group: str, steps: int) -> None:
    """One run; prints its losses as JSON."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    from memfit.data import Dataset, Loader, channels, scale

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192, image_size=SIDE, patch_size=16,
            num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    pixels, labels = torch.zeros(BATCH, 3, SIDE, SIDE), torch.zeros(BATCH, dtype=torch.int64)
    for _ in range(2):  # the framework's own memory, before the limit
        torch.nn.functional.cross_entropy(model(pixels).logits, labels).backward()
    optimizer.zero_grad()
    if group:
        Path(group, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    limited = way == "loader"
    loader = Loader(
        folder, BATCH, {"image": [scale(1 / 255), channels("first")]} if limited else (), shuffle=2, seed=3, output="torch",
        columns=["image", "label"] if limited else ["row", "label"], access="direct" if limited else "mapped",
        memory_budget=BUDGET if limited else None, threads=1,
    )  # fmt: skip
    whole = None if limited else torch.from_numpy(np.array(Dataset(folder).column("image")))
    losses, began = [], time.perf_counter()
    for batch in loader:
        images = (
            batch["image"] if whole is None else whole[batch["row"]].permute(0, 3, 1, 2).float() * np.float32(1 / 255)
        )
        loss = torch.nn.functional.cross_entropy(model(images.contiguous()).logits, batch["label"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if len(losses) == steps:
            break
    print(json.dumps({"losses": losses, "seconds": time.perf_counter() - began}))


def run(folder: Path, way: str, group: Path | None, steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--train", str(folder), way, str(group or ""), str(steps)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode != 0:
        return {"exit": done.returncode, "said": done.stderr.strip().split("\n")[-1][:200]}
    return {"exit": 0, **json.loads(done.stdout.strip().split("\n")[-1])}


def limited(folder: Path, way: str, steps: int) -> dict[str, Any]:
    group = GROUPS / f"memfit-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(LIMIT), encoding="ascii")
        found = run(folder, way, group, steps)
        found["most_used"] = int((group / "memory.max_usage_in_bytes").read_text(encoding="ascii"))
        return found
    finally:
        group.rmdir()


def main() -> None:
    from record import write

    from memfit.data import convert

    steps = int(sys.argv[1]) if len(sys.argv) > 1 else PICTURES // BATCH
    with tempfile.TemporaryDirectory() as temporary:
        place, rng = Path(temporary), np.random.default_rng(0)
        labels = rng.integers(0, 10, PICTURES)
        images = rng.integers(0, 200, (PICTURES, SIDE, SIDE, 3), dtype=np.uint8)
        images += (labels * 5).astype(np.uint8)[:, None, None, None]  # something to learn
        np.savez(place / "a.npz", image=images, label=labels, row=np.arange(PICTURES))
        folder = convert(place / "a.npz", place / "set").folder
        del images
        (place / "a.npz").unlink()
        result: dict[str, Any] = {
            "pictures_bytes": PICTURES * SIDE * SIDE * 3, "limit_bytes": LIMIT, "budget_bytes": BUDGET, "batch": BATCH,
            "from memory": run(folder, "memory", None, steps), "limited, memfit": limited(folder, "loader", steps),
            "from memory, limited": limited(folder, "memory", steps),
        }  # fmt: skip
    mine, theirs = result["limited, memfit"].get("losses"), result["from memory"]["losses"]
    result["steps"], result["same_losses"] = len(theirs), mine == theirs
    for run_ in (result["limited, memfit"], result["from memory"]):
        if "losses" in run_:
            run_["losses"] = [*run_["losses"][:3], *run_["losses"][-3:]]
    print(json.dumps(result, indent=1))
    write("out-of-memory-training", result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main()
