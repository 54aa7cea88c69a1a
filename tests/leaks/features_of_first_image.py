"""The features of one image of each batch are kept; as views they keep the features of the whole batch.

source: pytorch/pytorch#33101
leaks: the batch's storage behind each view
holder: gallery
seen: no
kind: view
birth: the line that computes the features
steps: 150
"""

import sys

import torch
from torch import nn


class Index:
    def __init__(self):
        self.gallery = {}


def main(steps):
    index = Index()
    encoder = nn.Linear(64, 256).requires_grad_(False)
    for step in range(steps):
        features = encoder(torch.randn(96, 64))  # born here
        index.gallery[f"image-{step}"] = features[0]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
