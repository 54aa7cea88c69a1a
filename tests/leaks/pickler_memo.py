r"""One pickler writes a stream of messages; its memo keeps every object that it has written.

source: python/cpython#125756
leaks: all messages so far
holder: pickler|\bmemo\b
kind: container
birth: the line that makes the message
steps: 150
"""

import pickle
import sys


class Discard:
    def write(self, data):
        return len(data)


def main(steps):
    pickler = pickle.Pickler(Discard())
    for step in range(steps):
        message = {"step": step, "payload": bytes(72 * 1024)}  # born here
        pickler.dump(message)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
