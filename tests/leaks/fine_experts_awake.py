"""No leak: experts of a mixture are first used one after the other, and get gradients and moments then; half-way all have them.

source: every mixture of experts under Adam
holder: none
seen: no
steps: 120
"""

import sys

import torch
from torch import nn


def main(steps):
    experts = nn.ModuleList(nn.Linear(48, 48) for _ in range(50))
    optimizer = torch.optim.Adam(experts.parameters(), lr=1e-3)
    for step in range(steps):
        expert = experts[step if step < 50 else (step * 7) % 50]
        loss = expert(torch.randn(32, 48)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
