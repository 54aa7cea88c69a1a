"""An endless loader made with itertools.cycle: cycle keeps every batch of the first pass, and the first pass is long.

source: pytorch/pytorch#23900
leaks: the batches so far
holder: cycle|batches
seen: no
kind: container
birth: the line that makes the batch
steps: 200
"""

import itertools
import sys

import numpy as np


class Samples:
    def __getitem__(self, number):
        if number >= 1_000_000:
            raise IndexError(number)
        return np.full(8 * 1024, number, dtype=np.float64)  # born here


def main(steps):
    batches = itertools.cycle(Samples())
    total = 0.0
    for step in range(steps):
        total += float(next(batches).mean())
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
