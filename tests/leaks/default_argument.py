"""A list as a default argument is one list for all calls.

source: getnikola/nikola#1532
leaks: every batch that was normalised
holder: seen|__defaults__|default argument
seen: no
kind: container
birth: the line that normalises
steps: 150
"""

import sys

import numpy as np


def normalise(batch, seen=[]):  # noqa: B006
    result = (batch - batch.mean()) / batch.std()  # born here
    seen.append(result)
    return result


def main(steps):
    random = np.random.default_rng(0)
    total = 0.0
    for step in range(steps):
        total += float(normalise(random.random(10_000))[0])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
