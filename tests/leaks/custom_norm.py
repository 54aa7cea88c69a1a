"""A hand-written normalisation blends each mean into its buffer without detaching it: the graph grows from step to step.

source: pytorch/pytorch#20275
leaks: the graph behind two buffers
holder: running_mean|running_var|norm
seen: no
kind: recurrent-state
birth: the line that blends
steps: 200
"""

import sys

import torch


class Norm(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, values):
        mean, var = values.mean(0), values.var(0)
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean  # born here
        self.running_var = 0.9 * self.running_var + 0.1 * var
        return (values - mean) / (var + 1e-5).sqrt() * self.scale


def main(steps):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), Norm(64), torch.nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(steps):
        loss = model(torch.randn(48, 32)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(loss.item())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
