"""No leak: a record class is made anew in each call; classes are cycles, and the collector frees them in time.

source: python/cpython#48010
holder: none
steps: 300
"""

import collections
import sys


def summary(number):
    names = [f"column_{k}" for k in range(8)]
    record = collections.namedtuple("Record", names)
    return record(*range(number, number + 8))


def main(steps):
    total = 0
    for step in range(steps):
        total += sum(summary(step))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
