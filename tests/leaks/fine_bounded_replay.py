"""No leak: a replay memory of detached transitions that drops the oldest once it is full.

source: ray-project/ray#6962
holder: none
steps: 300
"""

import sys
from collections import deque

import torch
from torch import nn


def main(steps):
    policy = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    memory = deque(maxlen=80)
    for step in range(steps):
        state = torch.randn(64, 64)
        value = policy(state).max(dim=1).values
        memory.append((state, value.detach()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
