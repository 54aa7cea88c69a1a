"""Experience for later replay stores the state of the recurrent policy as it is, attached to its graph.

source: Metta-AI/metta#1139
leaks: the policy's graph from the start of the run
holder: experience|rollout
seen: no
kind: replay-buffer
birth: the line that runs the cell
steps: 200
"""

import sys

import torch
from torch import nn


class Rollout:
    def __init__(self):
        self.cell = nn.LSTMCell(32, 64)
        self.experience = []

    def step(self, observation, state):
        hidden, cell = self.cell(observation, state)  # born here
        self.experience.append({"observation": observation, "lstm_state": (hidden, cell)})
        return hidden.detach(), cell.detach()


def main(steps):
    rollout = Rollout()
    state = torch.zeros(24, 64), torch.zeros(24, 64)
    for step in range(steps):
        state = rollout.step(torch.randn(24, 32), state)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
