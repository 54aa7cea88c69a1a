"""No leak: each of thirty sensors keeps its last readings in a ring of its own, and the rings fill over half of the run.

source: every monitor with a window for each sensor
holder: none
seen: no
steps: 400
"""

import collections
import sys


class Monitor:
    def __init__(self, window):
        self.readings = collections.defaultdict(lambda: collections.deque(maxlen=window))

    def read(self, sensor, value):
        self.readings[sensor].append(value)
        return len(self.readings[sensor])


def main(steps):
    monitor, deepest = Monitor(window=200), 0
    for step in range(steps):
        for sensor in range(30):
            deepest = max(deepest, monitor.read(f"sensor {sensor}", f"{step} volts at {sensor} " * 6))
    print(deepest)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
