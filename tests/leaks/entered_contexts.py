"""A server enters the context of every replica that it starts into its exit stack, and replicas are replaced all day long.

source: jina-ai/serve#3739
leaks: a replica for every update
holder: _exit_callbacks|stack
kind: container
birth: the line that loads the replica's weights
seen: no
steps: 150
"""

import contextlib
import sys


class Replica:
    def __init__(self, version):
        self.version, self.weights = version, bytearray(50_000)  # born here

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self.weights = None


class Server:
    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.current = None

    def update(self, version):
        self.current = self.stack.enter_context(Replica(version))


def main(steps):
    server = Server()
    for step in range(steps):
        server.update(step)
    print(server.current.version)
    server.stack.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
