"""No leak: a pool of connections grows while it is used, up to its size, and then serves from what it has.

source: urllib3/urllib3#1689
holder: none
steps: 300
"""

import sys


class Connection:
    def __init__(self, number):
        self.number, self.buffer = number, bytearray(16_384)


class Pool:
    def __init__(self, size):
        self.size, self.idle, self.made = size, [], 0

    def take(self):
        if self.made < self.size:
            self.made += 1
            return Connection(self.made)
        return self.idle.pop(0)

    def put(self, connection):
        self.idle.append(connection)


def main(steps):
    pool, total = Pool(120), 0
    for step in range(steps):
        connection = pool.take()
        total += len(connection.buffer)
        pool.put(connection)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
