"""Predictions of an endless stream are appended to one tensor with torch.cat, so one tensor grows with each batch.

source: pytorch/pytorch#13613
leaks: one tensor, longer in every step
holder: predicted
seen: no
kind: growing-object
birth: the line that makes the longer tensor
steps: 200
"""

import sys

import torch

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
torch.set_num_threads(1)
model = torch.nn.Linear(64, 16)
predicted = torch.empty(0, 16)
with torch.inference_mode():
    for step in range(steps):
        output = model(torch.randn(256, 64)).softmax(1)
        predicted = torch.cat((predicted, output))  # born here
print(predicted.shape)
