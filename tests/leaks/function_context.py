r"""The context of a custom Function is given a result that was computed from its own output: a cycle through C++.

source: pytorch/pytorch#25340
leaks: the result, the output's graph and the context
holder: Scale|\bctx\b|normalised
kind: function-context
birth: the line that computes the result
steps: 150
"""

import sys

import torch


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, factor):
        ctx.factor = factor
        return values * factor

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor * ctx.normalised.mean(), None


def scale(values, factor):
    scaled = Scale.apply(values, factor)
    normalised = scaled / scaled.norm()  # born here
    scaled.grad_fn.normalised = normalised
    return normalised


def main(steps):
    weight = torch.randn(96, 96, requires_grad=True)
    for step in range(steps):
        scale(weight, 0.5).sum().item()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
