"""A stub stands in for the metrics client of a long load test; a mock records the arguments of every call.

source: python/cpython#106823
leaks: every call with its arguments
holder: mock_calls|call_args_list|_mock|client
seen: no
kind: container
birth: the line that makes what is passed
steps: 200
"""

import sys
from unittest import mock


class Worker:
    def __init__(self, client):
        self.client = client

    def handle(self, number):
        payload = bytes([number % 256]) * 50_000  # born here
        self.client.send("answers", payload)
        return len(payload)


def main(steps):
    worker = Worker(mock.MagicMock(name="client"))
    total = 0
    for step in range(steps):
        total += worker.handle(step)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
