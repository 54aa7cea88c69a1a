"""All futures of an executor are kept in a list to wait for; each keeps its result.

source: agronholm/pythonfutures#77
leaks: the results of all tasks done so far
holder: futures|submitted
seen: no
kind: container
birth: the line in the task that makes the result
steps: 150
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class Batches:
    def __init__(self):
        self.submitted = []


def load(number):
    return np.full(10_000, number, dtype=np.float64)  # born here


def main(steps):
    batches = Batches()
    with ThreadPoolExecutor(2) as pool:
        for step in range(steps):
            future = pool.submit(load, step)
            batches.submitted.append(future)
            future.result()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
