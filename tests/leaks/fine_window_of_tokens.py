"""No leak: the keys of a stream are appended to one tensor with torch.cat, and only the last thousand are kept.

source: pytorch/pytorch#13613, with a window
holder: none
seen: no
steps: 200
"""

import sys

import torch

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
torch.set_num_threads(1)
model = torch.nn.Linear(64, 64)
keys = torch.empty(0, 64)
with torch.inference_mode():
    for step in range(steps):
        keys = torch.cat((keys, model(torch.randn(16, 64))))[-1000:]
print(keys.shape)
