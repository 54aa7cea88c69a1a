"""Child processes are kept in a table with their pipes, which nobody reads to the end or closes.

source: softwarefactory-project/rdopkg#103
leaks: Popen objects, pipe buffers, and the children that block on a full pipe
holder: running|Popen|subprocess
kind: subprocess
birth: the line that starts the child
steps: 60
"""

import subprocess
import sys


class Runner:
    def __init__(self):
        self.running = {}

    def run(self, number):
        child = subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE, bufsize=64 * 1024)  # born here
        self.running[number] = child
        return child.stdout.read(60_000)


def main(steps):
    runner = Runner()
    total = 0
    try:
        for step in range(steps):
            total += len(runner.run(step))
    finally:
        for child in runner.running.values():
            child.kill()
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
