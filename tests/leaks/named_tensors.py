"""A reporter of memory names the tensors it meets in a dictionary with the tensors themselves as its keys.

source: Stonesjtu/pytorch_memlab#17
leaks: every tensor that was alive at a report
holder: tensor_name
seen: no
kind: container
birth: the line that makes the tensor
steps: 150
"""

import sys

import torch


class Reporter:
    def __init__(self):
        self.tensor_name = {}

    def report(self, tensors):
        for tensor in tensors:
            self.tensor_name.setdefault(tensor, f"Tensor{len(self.tensor_name)}")
        return sum(tensor.numel() for tensor in tensors)


def main(steps):
    torch.set_num_threads(1)
    reporter, model, total = Reporter(), torch.nn.Linear(128, 128), 0
    for step in range(steps):
        with torch.no_grad():
            output = model(torch.randn(64, 128))  # born here
        total += reporter.report([*model.parameters(), output])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
