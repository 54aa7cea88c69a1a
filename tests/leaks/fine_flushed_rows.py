"""No leak: rows are gathered and written out in chunks, so memory is a saw with teeth of forty steps.

source: every writer of row groups
holder: none
steps: 240
"""

import os
import sys


class Writer:
    def __init__(self, file):
        self.file, self.rows = file, []

    def write(self, row):
        self.rows.append(row)
        if sum(map(len, self.rows)) >= 40 * 50_000:
            self.file.write(b"".join(self.rows))
            self.rows = []


def main(steps):
    with open(os.devnull, "wb") as file:
        writer = Writer(file)
        for step in range(steps):
            writer.write(bytes([step % 256]) * 50_000)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 240)
