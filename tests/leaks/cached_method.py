"""lru_cache on a method: the cache of the class keeps every instance that was ever asked.

source: dstl/Stone-Soup#801
leaks: one predictor with its table a step
holder: lru_cache|predict
kind: lru-cache
birth: the line that makes the table
steps: 150
"""

import functools
import sys

import numpy as np


class Predictor:
    def __init__(self, seed):
        self.table = np.random.default_rng(seed).random((64, 128))  # born here

    @functools.cache  # noqa: B019
    def predict(self, index):
        return float(self.table[index].sum())


def main(steps):
    total = 0.0
    for step in range(steps):
        predictor = Predictor(step)
        total += predictor.predict(3) + predictor.predict(5)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
