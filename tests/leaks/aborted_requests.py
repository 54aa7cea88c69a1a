"""A server keeps the key/value state of a request until it is done; aborted requests are never done.

source: sgl-project/sglang#21652
leaks: the state of aborted requests
holder: ongoing
kind: request-cache
birth: the line that makes the state
steps: 200
"""

import sys

import torch


class Server:
    def __init__(self):
        self.ongoing = {}

    def start(self, name, length):
        self.ongoing[name] = torch.zeros(2, length, 8, 32)  # born here

    def finish(self, name):
        del self.ongoing[name]

    def abort(self, name):
        """The client has gone: nothing more to send."""


def main(steps):
    server = Server()
    for step in range(steps):
        name = f"request-{step}"
        server.start(name, 128)
        if step % 4 == 3:
            server.abort(name)
        else:
            server.finish(name)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
