"""No leak: each request refers to the one before, and the chain is cut behind the last fifty.

source: celery/celery#486
holder: none
steps: 300
"""

import sys


class Request:
    def __init__(self, previous):
        self.body, self.previous = bytearray(8000), previous


class Pool:
    def __init__(self):
        self.last, self.oldest = None, []

    def run(self):
        self.last = Request(self.last)
        self.oldest.append(self.last)
        if len(self.oldest) > 50:
            self.oldest.pop(0)
            self.oldest[0].previous = None
        return len(self.last.body)


def main(steps):
    pool, total = Pool(), 0
    for step in range(steps):
        total += pool.run()
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
