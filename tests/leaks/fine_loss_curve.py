"""No leak: the loss of each step is kept as a number for a curve, a few bytes a step by intent.

source: google/brax#152
holder: none
steps: 300
"""

import sys

import torch
from torch import nn


def main(steps):
    model = nn.Linear(64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    curve = []
    for step in range(steps):
        loss = model(torch.randn(32, 64)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    print(curve[-1])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
