"""A custom Function keeps its own output as an attribute of the context, which the output's graph keeps alive.

source: pytorch/pytorch#25340
leaks: output and context, a cycle through C++
holder: ctx|context|Scale|grad_fn
kind: function-context
birth: the line in forward that computes the output
steps: 150
"""

import sys

import torch


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, factor):
        ctx.scaled = values * factor  # born here
        ctx.factor = factor
        return ctx.scaled

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


def main(steps):
    weight = torch.randn(96, 96, requires_grad=True)
    for step in range(steps):
        scaled = Scale.apply(Scale.apply(weight, 0.5) + 1, 0.5)
        scaled.sum().item()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
