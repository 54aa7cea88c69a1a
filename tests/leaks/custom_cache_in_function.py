"""A custom Function parks what backward needs in a list of its module; without a backward pass nothing takes it out.

source: dmlc/dgl#1060
leaks: the inputs of every forward pass
holder: backward_cache
seen: no
kind: function-context
birth: the line that makes the messages
steps: 150
"""

import sys

import torch

backward_cache = {}


class Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, source, index):
        ctx.key = len(backward_cache)
        backward_cache[ctx.key] = (source, index)
        return source.index_select(0, index).sum(0)

    @staticmethod
    def backward(ctx, gradient):
        source, index = backward_cache.pop(ctx.key)
        return torch.zeros_like(source).index_add(0, index, gradient.expand(len(index), -1)), None


def main(steps):
    weight = torch.randn(1, 96, requires_grad=True)
    index = torch.randint(0, 192, (512,))
    for step in range(steps):
        messages = torch.randn(192, 96) * weight  # born here
        Gather.apply(messages, index).sum().item()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
