"""Records are put into a queue for a listener that was configured and never started.

source: python/cpython#117827
leaks: log records in a queue of C
holder: queue|log
seen: no
kind: logging
birth: the line that logs
steps: 200
"""

import logging
import logging.handlers
import queue
import sys


def configured():
    waiting = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(waiting, logging.NullHandler())
    server = logging.getLogger("server")
    server.propagate = False
    server.setLevel(logging.INFO)
    server.addHandler(logging.handlers.QueueHandler(waiting))
    return server, listener


def main(steps):
    server, listener = configured()
    for step in range(steps):
        for request in range(10):
            server.info("request %d of %d: %s", request, step, "." * 500)  # born here
    print(listener.queue.qsize())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
