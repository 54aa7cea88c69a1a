"""A schedule prunes the same weight a little more at every step; each pruning stays in the layer with a mask of its own.

source: pytorch/pytorch#34257
leaks: a mask for every step
holder: _pruning_methods|_forward_pre_hooks|PruningContainer
kind: hook
birth: the line that prunes
seen: no
steps: 100
"""

import sys

import torch
from torch import nn
from torch.nn.utils import prune


def main(steps):
    model = nn.Sequential(nn.Linear(160, 160), nn.ReLU(), nn.Linear(160, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(steps):
        loss = model(torch.randn(16, 160)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        weight = model[0].weight.detach().abs()
        keep = weight > weight.flatten().kthvalue(1 + 20 * step).values
        prune.custom_from_mask(model[0], "weight", keep.float())  # born here


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
