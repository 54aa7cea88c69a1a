"""No leak: a ring of frames is allocated at once and touched frame by frame; it wraps after two fifths of the run.

source: every preallocated replay memory
holder: none
seen: no
steps: 200
"""

import sys

import numpy as np


def main(steps):
    capacity = max(1, steps * 2 // 5)
    ring = np.empty((capacity, 64, 64, 4), dtype=np.uint8)
    total = 0
    for step in range(steps):
        ring[step % capacity] = step % 255
        total += int(ring[step % capacity, 0, 0, 0])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
