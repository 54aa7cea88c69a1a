"""A reporter clones the loss instead of detaching it: a clone has a graph too.

source: pfnet/pytorch-pfn-extras#49
leaks: a graph with its activations a report
holder: observations|reporter
seen: no
kind: graph-kept
birth: the line that runs the model
steps: 150
"""

import sys

import torch
from torch import nn


class Reporter:
    observations = {}

    @classmethod
    def report(cls, name, value):
        cls.observations.setdefault(name, []).append(value.clone())


def evaluate(model):
    error = model(torch.randn(48, 3, 16, 16)).abs().mean()  # born here
    Reporter.report("error", error)


def main(steps):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 1))
    for step in range(steps):
        evaluate(model)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
