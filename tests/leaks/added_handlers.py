"""Every client adds a handler to the same logger; a handler buffers its records.

source: PaddleHQ/paddle-python-sdk#144
leaks: handlers, and what they buffer
holder: handlers
kind: logging
birth: the line that makes the handler
steps: 60
"""

import logging
import logging.handlers
import sys


class Client:
    def __init__(self):
        self.log = logging.getLogger("client")
        self.log.propagate = False
        self.log.setLevel(logging.INFO)
        self.log.addHandler(logging.handlers.MemoryHandler(10_000, flushLevel=logging.CRITICAL))  # born here

    def request(self, body):
        self.log.info("request %s", body)


def main(steps):
    for step in range(steps):
        Client().request("x" * 40_000 + str(step))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
