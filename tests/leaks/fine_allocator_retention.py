"""No leak: bursts of varying size are freed at once, but the allocator keeps the pages between what is still in use.

source: amun-ai/hypha#976
holder: none
steps: 120
"""

import random
import sys


def main(steps):
    chosen = random.Random(0)
    last = []
    for step in range(steps):
        burst = [bytearray(chosen.randrange(600, 60_000)) for _ in range(chosen.randrange(100, 300 + 6 * step))]
        last = burst[-3:]
        del burst
    print(len(last))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
