"""No leak: a compiled function meets new shapes until it is compiled for any shape.

source: pytorch/torchdynamo#1955
holder: none
steps: 150
"""

import sys

import torch


@torch.compile(backend="eager")
def attend(values):
    return torch.softmax(values @ values.T, dim=-1) @ values


def main(steps):
    torch.set_num_threads(1)
    for step in range(steps):
        attend(torch.randn(16 + step % 12, 64))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
