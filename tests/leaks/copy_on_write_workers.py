"""Worker processes read a big list of Python objects; counting references copies its pages into every worker.

source: pytorch/pytorch#13246
leaks: pages of the list become each worker's own as it touches them
holder: worker|records
kind: copy-on-write
birth: the line that makes the records
steps: 240
"""

import sys

import torch
from torch.utils.data import DataLoader, Dataset


class Records(Dataset):
    def __init__(self, count):
        self.records = [{"name": str(index), "label": index * 7 % 1000 + 1000} for index in range(count)]  # born here

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return float(self.records[index]["label"])


def main(steps):
    dataset = Records(steps * 900)
    loader = DataLoader(dataset, batch_size=900, num_workers=2, shuffle=False)
    batches = iter(loader)
    total = 0.0
    for step in range(steps):
        total += float(next(batches).sum())
    print(total)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 240)
