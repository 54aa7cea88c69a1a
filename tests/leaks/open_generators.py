"""Readers are generators that are asked for one row and then put aside; each keeps its frame and its table.

source: vapoursynth/vapoursynth#1263
leaks: suspended generators with the table in their frame
holder: readers
kind: generator
birth: the line in the generator that makes the table
steps: 150
"""

import sys

import numpy as np

readers = []


def rows(seed):
    table = np.random.default_rng(seed).random((64, 160))  # born here
    for row in table:
        yield float(row.sum())


def first_row(seed):
    reader = rows(seed)
    readers.append(reader)
    return next(reader)


def main(steps):
    print(sum(first_row(step) for step in range(steps)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
