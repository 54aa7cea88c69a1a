"""A stream of records is split with tee for a check of the first record; the second branch is kept and read no further.

source: python/cpython#138765
leaks: the records between the two branches
holder: preview
seen: no
kind: generator
birth: the line that makes the record
steps: 150
"""

import itertools
import sys


def records(count):
    for number in range(count):
        yield {"number": number, "payload": bytearray(20_000)}  # born here


class Reader:
    def __init__(self, source):
        self.rows, self.preview = itertools.tee(source)
        self.fields = sorted(next(self.preview))

    def __next__(self):
        return next(self.rows)


def main(steps):
    reader, total = Reader(records(steps)), 0
    for step in range(steps):
        total += len(next(reader)["payload"])
    print(total, reader.fields)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
