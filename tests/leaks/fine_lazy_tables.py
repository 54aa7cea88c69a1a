"""No leak: one table for each of thirty languages, built when it is first asked for.

source: pyro-ppl/brmp#67
holder: none
steps: 250
"""

import random
import sys

import numpy as np

tables = {}


def table(language):
    if language not in tables:
        tables[language] = np.zeros(32_768)
    return tables[language]


def main(steps):
    chosen = random.Random(1)
    total = 0.0
    for step in range(steps):
        total += float(table(chosen.randrange(30))[0])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
