"""Ten numbers of each array are kept as a slice, which keeps the whole array.

source: numpy/numpy#10273
leaks: the base array behind every slice
holder: heads
kind: view
birth: the line that makes the array
steps: 150
"""

import sys

import numpy as np

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 150
random = np.random.default_rng(0)
heads = []
for step in range(steps):
    samples = random.random(16_384)  # born here
    heads.append(samples[:10])
print(sum(float(head.sum()) for head in heads))
