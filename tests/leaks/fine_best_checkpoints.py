"""No leak: the twenty best states of a run are kept in a heap, and a better one takes the place of the worst.

source: every checkpoint of the k best
holder: none
seen: no
steps: 140
"""

import heapq
import sys

import torch
from torch import nn


class Best:
    def __init__(self, number):
        self.number, self.states = number, []

    def offer(self, score, step, model):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        if len(self.states) < self.number:
            heapq.heappush(self.states, (score, step, state))
        else:
            heapq.heappushpop(self.states, (score, step, state))


def main(steps):
    model, best = nn.Linear(96, 96), Best(20)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(steps):
        loss = model(torch.randn(32, 96)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 3 == 0:
            best.offer(-float(loss.detach()), step, model)
    print(best.states[0][0])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 140)
