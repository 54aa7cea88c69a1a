"""Frames are handed to a pool of threads faster than it can store them; what waits in its queue has no bound.

source: mowshon/bounded_pool_executor#7
leaks: the frames that wait
holder: _work_queue|pool|executor
kind: container
birth: the line that makes the frame
seen: no
steps: 250
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor


def store(frame, slow):
    slow.wait(0.02)
    return len(frame)


def main(steps):
    slow = threading.Event()
    pool = ThreadPoolExecutor(max_workers=1)
    for step in range(steps):
        frame = bytearray(40_000 + step % 3)  # born here
        pool.submit(store, frame, slow)
        time.sleep(0.004)
    slow.set()
    pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
