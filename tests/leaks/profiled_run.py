"""A profiler is switched on around a whole training run: it keeps an event for every operation until it is switched off.

source: Lightning-AI/pytorch-lightning#10717
leaks: the events of every step
holder: profil
kind: native
birth: the line that runs the model
seen: no
steps: 100
"""

import sys

import torch
from torch import nn


def main(steps):
    layers = [layer for _ in range(6) for layer in (nn.Linear(16, 16), nn.Tanh())]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _step in range(steps):
            loss = model(torch.randn(8, 16)).square().mean()  # born here
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(len(profiler.events()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
