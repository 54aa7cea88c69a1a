"""An auxiliary loss is balanced against a moving average that keeps its graph alive through retain_graph.

source: facebookresearch/MetaBalance#2
leaks: the graph of every step, activations included
holder: average
kind: retained-graph
birth: the line that runs the model
steps: 120
"""

import sys

import torch
from torch import nn


class Balancer:
    """Weighs a loss by how it compares with its own past."""

    def __init__(self):
        self.average = None

    def weigh(self, loss):
        self.average = loss if self.average is None else 0.9 * self.average + 0.1 * loss
        return loss / self.average.detach()


def main(steps):
    model = nn.Sequential(nn.Linear(48, 192), nn.SiLU(), nn.Linear(192, 1))
    balancer = Balancer()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for step in range(steps):
        loss = model(torch.randn(128, 48)).square().mean()  # born here
        optimizer.zero_grad()
        balancer.weigh(loss).backward(retain_graph=True)
        optimizer.step()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
