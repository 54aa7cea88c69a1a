"""A trainer keeps its validation losses for a plot, each with the activations that its graph saved.

source: pnnl/neuromancer#292
leaks: the activations of every validation pass
holder: history
kind: graph-kept
birth: the line that runs the model
steps: 150
"""

import sys

import torch
from torch import nn


class Trainer:
    def __init__(self):
        self.model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 1))
        self.history = {"train": [], "validation": []}

    def validate(self, batch):
        loss = self.model(batch).square().mean()  # born here
        self.history["validation"].append(loss)

    def fit(self, steps):
        optimizer = torch.optim.Adam(self.model.parameters())
        for step in range(steps):
            loss = self.model(torch.randn(32, 64)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.history["train"].append(loss.item())
            self.validate(torch.randn(96, 64))


if __name__ == "__main__":
    trainer = Trainer()
    trainer.fit(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
