"""No leak: a scratch buffer for each length of a sequence that was met; there are forty lengths, met again and again.

source: every decoder with buffers by length
holder: none
steps: 400
"""

import random
import sys

import numpy as np


class Decoder:
    def __init__(self):
        self.scratch = {}

    def decode(self, length):
        if length not in self.scratch:
            self.scratch[length] = np.zeros((length, 512))
        self.scratch[length][:] = 1.0
        return float(self.scratch[length][-1, 0])


def main(steps):
    draw = random.Random(0)
    decoder = Decoder()
    total = 0.0
    for step in range(steps):
        total += decoder.decode(draw.randrange(8, 48))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
