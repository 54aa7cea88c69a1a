"""Saved-tensor hooks pack an output as it is into a tuple: the graph then keeps the output that it belongs to.

source: pytorch/pytorch#82776
leaks: output, graph and packed tuple, a cycle through C++
holder: saved|pack|Exp
kind: function-context
birth: the line that computes the output
steps: 150
"""

import sys

import torch


def pack(tensor):
    return (tensor,)


def unpack(packed):
    return packed[0]


def forward(weight):
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        output = weight.exp()  # born here
        return output.mean().item()


def main(steps):
    weight = torch.randn(96, 96, requires_grad=True)
    total = 0.0
    for step in range(steps):
        total += forward(weight)
    print(total / steps)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
