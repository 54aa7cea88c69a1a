"""Training continues on all data so far: the data set of each experience is joined to the joined data set of those before.

source: ContinualAI/avalanche#1217
leaks: a data set within a data set for every experience, with its samples
holder: strategy.seen
kind: growing-object
birth: the line that makes the samples
seen: no
steps: 120
"""

import sys

import torch
from torch.utils.data import ConcatDataset, TensorDataset


class Strategy:
    def __init__(self):
        self.seen = TensorDataset(torch.zeros(1, 64), torch.zeros(1))

    def experience(self, samples, targets):
        self.seen = ConcatDataset([self.seen, TensorDataset(samples, targets)])
        return self.seen[len(self.seen) - 1]


def main(steps):
    strategy, total = Strategy(), 0.0
    for step in range(steps):
        samples = torch.randn(200, 64)  # born here
        last, _ = strategy.experience(samples, torch.full((200,), float(step)))
        total += float(last.sum())
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
