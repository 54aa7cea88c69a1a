"""No leak: the best state so far is kept as a copy, which replaces the one before it.

source: choderalab/pinot#23
holder: none
steps: 150
"""

import copy
import sys

import torch
from torch import nn


class Keeper:
    def __init__(self):
        self.best, self.score = None, float("inf")

    def consider(self, model, score):
        if score < self.score:
            self.best, self.score = copy.deepcopy(model.state_dict()), score


def main(steps):
    model, keeper = nn.Linear(256, 256), Keeper()
    for step in range(steps):
        with torch.no_grad():
            model.weight.mul_(0.99)
            score = float(model(torch.ones(4, 256)).abs().mean())
        keeper.consider(model, score)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
