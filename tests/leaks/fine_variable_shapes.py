"""No leak: convolutions over images of many sizes; the library below keeps one compiled kernel a size.

source: pytorch/pytorch#27971
holder: none
steps: 200
"""

import random
import sys

import torch
from torch import nn


def main(steps):
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()).eval()
    sizes = [(32 + 8 * index, 40 + 8 * index) for index in range(16)]
    chosen = random.Random(0)
    for step in range(steps):
        with torch.inference_mode():
            model(torch.randn(1, 3, *chosen.choice(sizes)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
