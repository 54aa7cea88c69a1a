"""Average precision keeps all predictions until it is reset, and nobody resets it.

source: Lightning-AI/torchmetrics#3294
leaks: predictions and targets of every batch
holder: predictions|targets|metric
kind: metric-state
birth: the line that makes the predictions
steps: 200
"""

import sys

import torch


class AveragePrecision:
    def __init__(self):
        self.predictions, self.targets = [], []

    def __call__(self, predictions, targets):
        self.predictions.append(predictions)
        self.targets.append(targets)
        return float((predictions.round() == targets).float().mean())

    def reset(self):
        self.predictions, self.targets = [], []


def main(steps):
    metric = AveragePrecision()
    for step in range(steps):
        predictions = torch.rand(1024, 16)  # born here
        targets = torch.randint(0, 2, (1024, 16))
        metric(predictions, targets)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
