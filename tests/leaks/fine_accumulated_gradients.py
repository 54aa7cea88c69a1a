"""No leak: losses of eight small batches are kept with their graphs until their sum is differentiated, then dropped.

source: pytorch/pytorch#17568
holder: none
steps: 240
"""

import sys

import torch


def main(steps):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 1))
    optimizer = torch.optim.Adam(model.parameters())
    waiting, total = [], 0.0
    for step in range(steps):
        waiting.append(model(torch.randn(32, 64)).square().mean())
        if len(waiting) == 8:
            loss = torch.stack(waiting).mean()
            waiting.clear()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 240)
