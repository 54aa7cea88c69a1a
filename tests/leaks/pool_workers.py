"""Workers of a pool keep every log that they have read in a dict of their own module, and the pool lives as long as the server.

source: Netflix/metaflow-service#416
leaks: logs in worker processes
holder: worker process|PoolWorker
seen: no
kind: subprocess
birth: the line that keeps the log
steps: 80
"""

import multiprocessing
import sys

LOGS = {}


def read_log(number):
    LOGS[number] = bytearray(b"x" * 150_000)  # born here
    return len(LOGS[number])


def main(steps):
    total = 0
    with multiprocessing.get_context("fork").Pool(1) as pool:
        for step in range(steps):
            total += pool.apply(read_log, (step,))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 80)
