"""Per-sample gradients need activations: forward hooks collect them, and only a backward pass empties the list.

source: meta-pytorch/opacus#176
leaks: the activations of every evaluation batch
holder: activations
kind: hook
birth: the line of the model that computes the activation
steps: 150
"""

import sys

import torch
from torch import nn


def collect(module, inputs, output):
    if not hasattr(module, "activations"):
        module.activations = []
    if module.training:
        module.activations.append(inputs[0])


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 160), nn.Linear(160, 2)
        self.second.register_forward_hook(collect)

    def forward(self, features):
        hidden = torch.relu(self.first(features))  # born here
        return self.second(hidden)


def main(steps):
    model = Head()  # nobody calls eval()
    correct = 0
    for step in range(steps):
        with torch.no_grad():
            correct += int(model(torch.randn(64, 64)).argmax(1).sum())
    print(correct)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
