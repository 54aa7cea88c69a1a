"""No leak: persistent workers read an array, whose pages stay shared, over several epochs.

source: pytorch/pytorch#62066
holder: none
seen: no
steps: 200
"""

import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __init__(self):
        self.data = np.random.default_rng(0).random((4000, 256), dtype=np.float32)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index] + 1


def batches(loader, steps):
    given = 0
    while given < steps:
        for batch in loader:
            yield batch
            given += 1
            if given == steps:
                return


def main(steps):
    loader = DataLoader(Rows(), batch_size=100, num_workers=2, persistent_workers=True)
    stream = batches(loader, steps)
    total = 0.0
    for step in range(steps):
        total += float(next(stream).mean())
    print(total)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
