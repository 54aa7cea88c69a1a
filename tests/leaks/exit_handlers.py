"""Every connection registers its close method to run at exit; exit never comes for a server.

source: ARM-software/devlib#676
leaks: one connection with its buffer a step
holder: atexit
kind: container
birth: the line that makes the buffer
steps: 150
"""

import atexit
import sys


class Connection:
    def __init__(self):
        self.buffer = bytearray(80 * 1024)  # born here
        atexit.register(self.close)

    def close(self):
        self.buffer = None


def main(steps):
    total = 0
    for step in range(steps):
        total += len(Connection().buffer)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
