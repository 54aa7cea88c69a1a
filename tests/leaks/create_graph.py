r"""backward(create_graph=True) on a fresh leaf each step: the leaf and its gradient keep each other alive.

source: pytorch/pytorch#7343
leaks: the adapted weight, its gradient and the graph between them
holder: grad\b|create_graph
kind: create-graph
birth: the line that makes the adapted weight
steps: 150
"""

import sys

import torch


def adapt(target):
    weight = torch.randn(96, 96, requires_grad=True)  # born here
    loss = (weight.tanh() - target).square().sum()
    loss.backward(create_graph=True)
    return weight.grad.norm().item()


def main(steps):
    target = torch.randn(96, 96)
    total = 0.0
    for step in range(steps):
        total += adapt(target)
    print(total / steps)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
