"""Statistics of a trainer are meters under the name of their loader; the loss is added to its meter with its graph.

source: visionml/pytracking#313
leaks: the graphs behind one sum
holder: stats|meter|sum
seen: no
kind: graph-kept
birth: the line that adds
steps: 150
"""

import sys

import torch


class AverageMeter:
    def __init__(self):
        self.sum, self.count = 0.0, 0

    def update(self, value, count):
        self.sum = self.sum + value * count  # born here
        self.count += count


class Trainer:
    def __init__(self):
        self.model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.stats = {"train": {"loss": AverageMeter()}, "val": {}}

    def step(self, batch):
        loss = self.model(batch).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.stats["train"]["loss"].update(loss, len(batch))


def main(steps):
    torch.manual_seed(0)
    trainer = Trainer()
    for step in range(steps):
        trainer.step(torch.randn(32, 64))
    print(float(trainer.stats["train"]["loss"].sum) / trainer.stats["train"]["loss"].count)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
