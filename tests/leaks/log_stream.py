"""A worker forwards its log records through a stream handler over a StringIO, which nobody ever empties.

source: hatchet-dev/hatchet#4587
leaks: the text in one StringIO
holder: stream|StringIO
seen: no
kind: logging
birth: the line that logs
steps: 150
"""

import io
import logging
import sys


class Forwarding(logging.StreamHandler):
    def __init__(self, sender):
        super().__init__(io.StringIO())
        self.sender = sender

    def emit(self, record):
        super().emit(record)
        self.sender(self.format(record))


def main(steps):
    sent = [0]
    log = logging.getLogger("worker")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(Forwarding(lambda text: sent.__setitem__(0, sent[0] + len(text))))
    for step in range(steps):
        for task in range(40):
            log.info("task %d of step %d has finished: %s", task, step, "." * 400)  # born here
    print(sent[0])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
