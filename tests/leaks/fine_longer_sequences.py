"""No leak: sequences get longer during the first third of the run, then stay as they are.

source: floneum/kalosm#199
holder: none
seen: no
steps: 210
"""

import sys

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.keys = torch.zeros(16, 8, 64)

    def forward(self, values):
        if len(values) > len(self.keys):
            self.keys = torch.zeros(2 * len(self.keys), 8, 64)
        self.keys[: len(values)] = values
        return self.keys[: len(values)].sum()


def main(steps):
    model = Attention()
    for step in range(steps):
        with torch.no_grad():
            model(torch.randn(min(16 + 16 * step, 1024), 8, 64))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 210)
