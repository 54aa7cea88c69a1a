"""The threads of a server keep what they read for their requests in thread-local data, which is never cleared between requests.

source: cherrypy/cherrypy#496
leaks: request bodies in the thread-local data of other threads
holder: local|thread_data|bodies
seen: no
kind: thread-local
birth: the line that keeps the body
steps: 200
"""

import concurrent.futures
import sys
import threading


class Application:
    def __init__(self):
        self.thread_data = threading.local()

    def handle(self, number):
        data = self.thread_data
        if not hasattr(data, "bodies"):
            data.bodies = []
        data.bodies.append({"number": number, "body": bytearray(15_000)})  # born here
        return len(data.bodies[-1]["body"])


def main(steps):
    application, total = Application(), 0
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        for step in range(steps):
            total += sum(threads.map(application.handle, range(step * 4, step * 4 + 4)))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
