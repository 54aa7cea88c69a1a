r"""Parameters are replaced as the model grows and shrinks; the optimizer keeps the old ones with their moments.

source: nerfstudio-project/gsplat#931
leaks: old parameters as keys of the optimizer's state, and their moments
holder: optimizer|\.state\b
seen: no
kind: container
birth: the line that makes the new parameter
steps: 100
"""

import sys

import torch


class Cloud:
    def __init__(self, count):
        self.points = torch.nn.Parameter(torch.randn(count, 16))
        self.optimizer = torch.optim.Adam([self.points])

    def densify(self):
        self.points = torch.nn.Parameter(self.points.detach().roll(1, 0))  # born here
        self.optimizer.param_groups[0]["params"] = [self.points]

    def step(self):
        self.points.square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def main(steps):
    cloud = Cloud(1024)
    for step in range(steps):
        cloud.densify()
        cloud.step()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
