"""Each candidate network assigns one of its own methods to an attribute; the collector was frozen and switched off for speed.

source: pytorch/pytorch#128211
leaks: networks in a cycle through their own method
holder: cycle|activation|Candidate
seen: no
kind: reference-cycle
birth: the line that makes the network
steps: 120
"""

import gc
import sys

import torch


class Candidate(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = torch.nn.Linear(width, width)
        self.activation = self.squashed

    def squashed(self, values):
        return values.tanh()

    def forward(self, values):
        return self.activation(self.layer(values))


def main(steps):
    gc.freeze()
    gc.disable()
    values, best = torch.randn(2, 96), 0.0
    with torch.no_grad():
        for step in range(steps):
            candidate = Candidate(96)  # born here
            best = max(best, candidate(values).sum().item())
    print(best)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
