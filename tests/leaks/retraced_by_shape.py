"""A jitted function meets a new shape in every step: each is traced and compiled, and nothing drops the old ones.

source: jax-ml/jax#2072
leaks: one compiled program a shape
holder: jit|compil|jax|mean_product
kind: compile-cache
birth: the line that calls the jitted function
steps: 60
needs: jax
"""

import sys

import jax
import numpy as np


@jax.jit
def mean_product(left, right):
    return (left.T @ right).mean()


def main(steps):
    left = np.ones((32, 8), dtype=np.float32)
    total = 0.0
    for step in range(steps):
        total += float(mean_product(left, np.ones((32, step + 1), dtype=np.float32)))  # born here
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
