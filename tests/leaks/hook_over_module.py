"""A module hooks itself with a closure over self, models are rebuilt in a search, and the collector is off.

source: pytorch/pytorch#46386
leaks: whole models, each a cycle module -> hook -> closure -> module
holder: _forward_hooks|forward.?hook|Candidate
kind: hook
birth: the line that makes the layer
steps: 60
"""

import gc
import sys

import torch
from torch import nn


class Candidate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Linear(width, width)  # born here
        self.calls = 0

        def count(module, inputs, output):
            self.calls += 1

        self.body.register_forward_hook(count)

    def forward(self, features):
        return self.body(features)


def main(steps):
    gc.disable()  # the usual advice against pauses in a training loop
    for step in range(steps):
        candidate = Candidate(256)
        with torch.no_grad():
            candidate(torch.randn(4, 256))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
