"""Failures of a batch are collected for a report; each exception holds the frames it came through, with their tensors.

source: pytorch/pytorch#10348
leaks: the local tensors of the frames that raised
holder: failures
kind: exception
birth: the line that makes the batch
steps: 120
"""

import sys

import torch


class Report:
    def __init__(self):
        self.failures = []


def process(index):
    batch = torch.randn(96, 128)  # born here
    if float(batch[0, 0]) < 100:
        raise ValueError(f"batch {index} has no label")
    return batch


def main(steps):
    report = Report()
    for step in range(steps):
        try:
            process(step)
        except ValueError as error:
            report.failures.append(error)
    print(len(report.failures))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
