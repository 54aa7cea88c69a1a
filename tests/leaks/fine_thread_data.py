"""No leak: the threads of a server keep the last body in thread-local data, each in place of the one before.

source: cherrypy/cherrypy#496
holder: none
steps: 250
"""

import concurrent.futures
import sys
import threading

DATA = threading.local()


def handle(number):
    DATA.body = {"number": number, "body": bytearray(20_000 + number % 7 * 1000)}
    return len(DATA.body["body"])


def main(steps):
    total = 0
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        for step in range(steps):
            total += sum(threads.map(handle, range(step * 4, step * 4 + 4)))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
