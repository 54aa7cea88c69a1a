"""Adapters are evaluated one after the other: each is added to every layer under a name of its own, and none is deleted.

source: huggingface/peft#738
leaks: adapters in the module tables of the layers
holder: adapters
seen: no
kind: container
birth: the line that makes the adapter
steps: 80
"""

import sys

import torch


class Adapted(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.base = torch.nn.Linear(width, width)
        self.adapters = torch.nn.ModuleDict()
        self.active = ""

    def load_adapter(self, name, rank):
        width = self.base.in_features
        self.adapters[name] = torch.nn.Sequential(
            torch.nn.Linear(width, rank, bias=False),
            torch.nn.Linear(rank, width, bias=False),  # born here
        )
        self.active = name

    def forward(self, values):
        return self.base(values) + self.adapters[self.active](values)


def main(steps):
    model = torch.nn.Sequential(Adapted(128), Adapted(128))
    values, best = torch.randn(4, 128), 0.0
    with torch.no_grad():
        for step in range(steps):
            for layer in model:
                layer.load_adapter(f"task-{step}", 8)
            best = max(best, model(values).mean().item())
    print(best)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 80)
