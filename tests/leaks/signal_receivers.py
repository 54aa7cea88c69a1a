"""A signal remembers its receivers by sender; senders that are gone leave their entry behind.

source: pallets-eco/blinker#12
leaks: entries of senders that are gone
holder: by_sender
seen: no
kind: container
birth: the line that makes the entry
steps: 200
"""

import sys
import weakref


class Signal:
    def __init__(self):
        self.receivers, self.by_sender = {}, {}

    def connect(self, receiver, sender):
        key = id(receiver)
        self.receivers[key] = weakref.ref(receiver)
        self.by_sender.setdefault((id(sender), sender.name), set()).add((key, sender.name.upper()))  # born here

    def send(self, sender):
        return sum(self.receivers[key]()(sender) for key, _ in self.by_sender[id(sender), sender.name])


class Job:
    def __init__(self, name):
        self.name, self.body = name, bytearray(1000)


def size(job):
    return len(job.body)


def main(steps):
    finished, total = Signal(), 0
    for step in range(steps):
        for part in range(25):
            job = Job(f"job-{step}-{part}")
            finished.connect(size, job)
            total += finished.send(job)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
