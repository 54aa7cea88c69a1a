"""No leak: each thread of a pool makes its own buffer when it gets its first task.

source: cherrypy/cherrypy#496
holder: none
steps: 200
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

local = threading.local()


def work(number):
    if not hasattr(local, "buffer"):
        local.buffer = np.zeros(500_000)
    local.buffer[:1000] = number
    return float(local.buffer[:1000].sum())


def main(steps):
    total = 0.0
    with ThreadPoolExecutor(8) as pool:
        for step in range(steps):
            total += sum(pool.map(work, range(step, step + 4)))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
