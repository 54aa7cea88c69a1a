"""Each job gets a shared list that holds a shared lock; the manager's process keeps a proxy of every lock that it was sent.

source: python/cpython#103136
leaks: proxies in the manager's process
holder: worker|manager|Manager|SyncManager|process
seen: no
kind: subprocess
birth: the line that sends the lock
steps: 60
"""

import multiprocessing
import sys


def job(manager, step):
    shared = manager.list()
    shared.append(bytearray(300_000))
    held = manager.dict()
    held["rows"] = shared  # born here
    return len(held)


def main(steps):
    total = 0
    with multiprocessing.get_context("fork").Manager() as manager:
        for step in range(steps):
            total += job(manager, step)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
