"""Records are handed to a background thread whose listener is slow; its queue has no largest size.

source: getlogbook/logbook#121
leaks: work items that wait
holder: _work_queue|background|sender
seen: no
kind: logging
birth: the line that hands over
steps: 200
"""

import concurrent.futures
import sys
import threading


class Background:
    def __init__(self):
        self.sender = concurrent.futures.ThreadPoolExecutor(1)
        self.offline = threading.Event()

    def send(self, record):
        self.offline.wait(0.05)
        return len(record)

    def emit(self, record):
        self.sender.submit(self.send, record)  # born here


def main(steps):
    background = Background()
    for step in range(steps):
        for part in range(5):
            background.emit(f"record {step} {part} ".encode() * 200)
    background.offline.set()
    background.sender.shutdown(cancel_futures=True)
    print("sent")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
