"""No leak: an index over a stream of vectors doubles its array whenever it is full, and is complete after half of the steps.

source: every index that grows by doubling
holder: none
seen: no
steps: 300
"""

import sys

import numpy


class Index:
    def __init__(self, width):
        self.vectors, self.count = numpy.zeros((16, width), numpy.float32), 0

    def add(self, vector):
        if self.count == len(self.vectors):
            self.vectors = numpy.concatenate([self.vectors, numpy.zeros_like(self.vectors)])
        self.vectors[self.count] = vector
        self.count += 1

    def nearest(self, vector):
        return int(((self.vectors[: self.count] - vector) ** 2).sum(1).argmin())


def main(steps):
    generator, index, total = numpy.random.default_rng(0), Index(512), 0
    for step in range(steps):
        vectors = generator.random((4, 512), numpy.float32)
        if step < steps // 2:
            for vector in vectors:
                index.add(vector)
        total += index.nearest(vectors[0])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
