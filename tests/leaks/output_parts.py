"""The losses of an epoch are collected in nested lists, one per data set, each in a dict with its graph.

source: TRI-ML/packnet-sfm#51
leaks: losses with their graphs
holder: output
seen: no
kind: graph-kept
birth: the line that computes the loss
steps: 150
"""

import sys

import torch


class Epoch:
    def __init__(self, datasets):
        self.outputs = [[] for _ in range(datasets)]

    def add(self, dataset, result):
        self.outputs[dataset].append(result)


def main(steps):
    torch.manual_seed(0)
    encoder, decoder = torch.nn.Linear(96, 96), torch.nn.Linear(96, 4)
    epoch = Epoch(2)
    for step in range(steps):
        batch = torch.randn(48, 96)
        loss = decoder(torch.relu(encoder(batch))).square().mean()  # born here
        epoch.add(step % 2, {"loss": loss, "metrics": {"size": len(batch)}})
    print(sum(float(row["loss"].detach()) for rows in epoch.outputs for row in rows) / steps)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
