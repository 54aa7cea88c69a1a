"""The running loss of an epoch is a tensor, so it keeps the graph of every step that was added to it.

source: BatsResearch/labelmodels#4
leaks: the nodes of each step's graph, linked through the additions
holder: running_loss
kind: graph-kept
birth: the line that runs the model
steps: 160
"""

import sys

import torch
from torch import nn


def train(steps):
    model = nn.Sequential(*[layer for _ in range(12) for layer in (nn.Linear(32, 32), nn.Tanh())], nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    running_loss = torch.zeros(())
    for step in range(steps):
        features = torch.randn(16, 32)
        loss = model(features).pow(2).mean()  # born here
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running_loss = running_loss + loss
    print(running_loss.item() / steps)


if __name__ == "__main__":
    train(int(sys.argv[1]) if len(sys.argv) > 1 else 160)
