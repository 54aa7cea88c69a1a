r"""A replay memory stores the value that the policy computed, with its graph.

source: Kaixhin/Rainbow#33
leaks: one graph with its activations a transition
holder: transitions|\bmemory\.
kind: replay-buffer
birth: the line that runs the policy
steps: 200
"""

import sys
from collections import deque

import torch
from torch import nn


class Replay:
    def __init__(self, capacity):
        self.transitions = deque(maxlen=capacity)

    def push(self, state, value):
        self.transitions.append((state, value))


def main(steps):
    policy = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 4))
    memory = Replay(100_000)
    state = torch.randn(64, 64)
    for step in range(steps):
        value = policy(state).max(dim=1).values  # born here
        memory.push(state, value)
        state = torch.randn(64, 64)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
