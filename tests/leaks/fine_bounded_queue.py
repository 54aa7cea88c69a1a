"""No leak: a producer fills a queue faster than it is emptied, until the queue's bound makes it wait.

source: deep-learning-with-pytorch/dlwpt-code#26, with a bound
holder: none
seen: no
steps: 200
"""

import queue
import sys
import threading

import numpy as np


def produce(waiting, count):
    for number in range(count):
        waiting.put(np.full(10_000, float(number)))


def main(steps):
    waiting = queue.Queue(maxsize=40)
    threading.Thread(target=produce, args=(waiting, steps), daemon=True).start()
    total = 0.0
    for step in range(steps):
        total += float(waiting.get()[0])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
