"""The state of a recurrent network is carried from batch to batch and never detached.

source: pytorch/pytorch#2198
leaks: the graph of all batches so far
holder: hidden
kind: recurrent-state
birth: the line that runs the network
steps: 150
"""

import sys

import torch
from torch import nn

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 150
network = nn.GRU(24, 48)
hidden = torch.zeros(1, 16, 48)
for step in range(steps):
    sequence = torch.randn(6, 16, 24)
    output, hidden = network(sequence, hidden)  # born here
