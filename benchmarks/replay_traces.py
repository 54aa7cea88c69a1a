"""Record the two traces of benchmarks/instances/replay anew: a six-layer transformer in training on the CPU.

    python benchmarks/replay_traces.py

*fixed*: one shape every step; *variable*: batch and length drawn anew each step. Every allocation and free that torch's
profiler reports, from before the parameters exist; block numbers and byte counts, nothing else.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

from memfit.frameworks.torch.profiler_events import ProfilerHook

FOLDER = Path(__file__).parent / "instances" / "replay"
WIDTH, HEADS, LAYERS, VOCABULARY = 256, 4, 6, 4000


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embedding(tokens)))


def train(shapes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    for batch, length in shapes:
        tokens = torch.randint(VOCABULARY, (batch, length))
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def record(name: str, shapes: list[tuple[int, int]]) -> None:
    hook = ProfilerHook()
    hook.start_recording()
    train(shapes)
    found = hook.stop_recording()
    delta = found.delta
    np.savez_compressed(
        FOLDER / f"{name}.npz", block=found.block.astype(np.int32), nbytes=np.maximum(delta, 0).astype(np.int32)
    )
    live = np.cumsum(delta)
    print(f"{name}: {len(delta)} events, live peak {live.max() / 1e6:.2f} MB, {len(shapes)} steps")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    record("fixed", [(8, 64)] * 10)
    drawn = random.Random(0)
    record("variable", [(drawn.randint(2, 12), drawn.randint(16, 128)) for _ in range(40)])


if __name__ == "__main__":
    main()
