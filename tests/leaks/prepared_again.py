"""A search prepares its model anew for each batch size: forward is wrapped once more, and the registry keeps one more.

source: huggingface/accelerate#3967
leaks: wrappers with the buffers that they brought along
holder: forward|_models|prepared
kind: class-registry
birth: the line that makes the wrapper's scale
steps: 120
"""

import sys

import torch
from torch import nn


def autocast(forward):
    scale = torch.ones(96, 96)  # born here

    def wrapped(values):
        return forward(values) * scale[0, 0]

    return wrapped


class Accelerator:
    def prepare(self, model):
        model.forward = autocast(model.forward)
        return model


def main(steps):
    accelerator = Accelerator()
    model = nn.Linear(32, 32)
    total = 0.0
    for step in range(steps):
        model = accelerator.prepare(model)
        with torch.no_grad():
            total += float(model(torch.ones(2, 32)).mean())
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
