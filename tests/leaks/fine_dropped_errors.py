"""No leak: every step fails with a large batch in the failing frame; the error is counted and dropped.

source: pytorch/pytorch#182980
holder: none
seen: no
steps: 150
"""

import sys

import torch


def process(number):
    batch = torch.randn(96, 128)
    if batch.numel():
        raise ValueError(f"batch {number} has no label")


def main(steps):
    failed = 0
    for step in range(steps):
        try:
            process(step)
        except ValueError:
            failed += 1
    print(failed)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
