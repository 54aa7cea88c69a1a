"""No leak: a jitted function compiles one program for each of five padded lengths, then runs them again and again.

source: jax-ml/jax#2072, with padding
holder: none
steps: 200
needs: jax
"""

import sys

import jax
import numpy as np


@jax.jit
def score(values):
    return (values * values).sum()


def main(steps):
    total = 0.0
    for step in range(steps):
        length = 7 + step % 140
        padded = np.zeros(max(8, 1 << (length - 1).bit_length()), dtype=np.float32)
        padded[:length] = 1.0
        total += float(score(padded))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
