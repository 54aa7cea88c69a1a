"""Work is sent to threads through an event loop that only runs now and then: their answers wait in the loop to be delivered.

source: python/cpython#85865
leaks: the answer of every call, in a callback that is ready and never called
holder: _ready|loop._
kind: task
birth: the line that makes the answer
seen: no
steps: 200
"""

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def work(number):
    return bytearray(40_000 + number % 3)  # born here


def main(steps):
    loop = asyncio.new_event_loop()
    pool = ThreadPoolExecutor(max_workers=2)
    for step in range(steps):
        loop.run_in_executor(pool, work, step)
        time.sleep(0.002)
    pool.shutdown()
    loop.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
