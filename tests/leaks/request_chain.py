r"""Each request of a pool refers to the one before, so that it can be restored; the pool refers to the last.

source: celery/celery#486
leaks: a chain of requests, in no container
holder: pool\.last|\.previous
seen: no
kind: growing-object
birth: the line that makes the request
steps: 250
"""

import sys


class Request:
    __slots__ = ("arguments", "previous", "result")

    def __init__(self, arguments, previous):
        self.arguments, self.previous, self.result = arguments, previous, None


class Pool:
    def __init__(self):
        self.last = None

    def run(self, arguments):
        request = self.last = Request(arguments, self.last)  # born here
        request.result = sum(arguments[:10])
        return request.result


def main(steps):
    pool, total = Pool(), 0
    for step in range(steps):
        for part in range(3):
            total += pool.run(bytearray(4000))
    print(total)
    while pool.last is not None:  # a chain this long must not be freed in one go
        pool.last = pool.last.previous


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
