"""No leak: an lru_cache with a bound, on more keys than it has room for.

source: Textualize/rich#1831
holder: none
steps: 250
"""

import functools
import sys

import numpy as np


@functools.lru_cache(maxsize=64)
def table(key):
    return np.full(8192, float(key))


def main(steps):
    total = 0.0
    for step in range(steps):
        total += float(table(step)[0])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
