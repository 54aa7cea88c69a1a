"""weakref.finalize is given a bound method, which keeps the very object that it should outlive.

source: bluesky/ophyd#865
leaks: one device with its buffer a step, until the process ends
holder: finalize
kind: weakref-callback
birth: the line that makes the buffer
steps: 150
"""

import sys
import weakref

import numpy as np


class Device:
    def __init__(self, name):
        self.name = name
        self.buffer = np.ones(12_000)  # born here
        weakref.finalize(self, self.release)

    def release(self):
        self.buffer = None


def main(steps):
    total = 0.0
    for step in range(steps):
        device = Device(f"device-{step}")
        total += float(device.buffer[0])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
