"""No leak: the outputs of an epoch are collected, and given back at its end.

source: Lightning-AI/torchmetrics#1949
holder: none
steps: 240
"""

import sys

import torch


class Metric:
    def __init__(self):
        self.outputs = []

    def update(self, output):
        self.outputs.append(output)

    def reset(self):
        self.outputs = []


def main(steps):
    metric = Metric()
    for step in range(steps):
        metric.update(torch.randn(128, 128))
        if step % 20 == 19:
            metric.reset()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 240)
