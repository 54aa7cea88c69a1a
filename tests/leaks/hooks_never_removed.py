"""Every explanation of a prediction hooks the model anew; no handle is ever removed.

source: jacobgil/pytorch-grad-cam#132
leaks: one explainer with its last activation a step, kept by the model's hook table
holder: _forward_hooks|forward.?hook
kind: hook
birth: the line in the hook that copies the activation
steps: 80
"""

import sys

import torch
from torch import nn


class Explainer:
    def __init__(self, layer):
        self.activation = None
        layer.register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        if self.activation is None:
            self.activation = output.detach().clone()  # born here


def main(steps):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    images = torch.randn(2, 3, 48, 48)
    for step in range(steps):
        explainer = Explainer(model[0])
        with torch.no_grad():
            model(images)
        explainer.activation.mean().item()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 80)
