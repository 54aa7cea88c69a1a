"""No leak: an optimizer keeps the last ten directions and gradients, and drops the oldest.

source: pytorch/pytorch#5953
holder: none
steps: 150
"""

import sys

import torch


def main(steps):
    torch.manual_seed(0)
    weights = torch.zeros(2000, requires_grad=True)
    target = torch.randn(2000)
    optimizer = torch.optim.LBFGS([weights], lr=0.05, max_iter=1, history_size=40)

    def closure():
        optimizer.zero_grad()
        loss = ((weights - target) ** 4).sum() + weights.square().sum()
        loss.backward()
        return loss

    for step in range(steps):
        loss = optimizer.step(closure)
    print(float(loss))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
