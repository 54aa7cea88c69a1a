"""No leak: an index is built over the first steps of the loop that uses it, and is complete after a fifth of them.

source: facebookresearch/faiss#1085
holder: none
steps: 300
"""

import sys

import numpy as np


def main(steps):
    random, index, found = np.random.default_rng(0), {}, 0
    for step in range(steps):
        if len(index) < 6000:
            for row in range(100):
                index[len(index)] = random.random(16)
        found += sum(float(index[k % len(index)][0]) > 0.5 for k in range(step * 50, step * 50 + 50))
    print(found)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
