"""A thread a request waits for an event that never comes; its thread-local session lives as long as it does.

source: cherrypy/cherrypy#496
leaks: threads, and the session of each
holder: thread|serving|session
kind: thread-local
birth: the line that makes the session's buffer
steps: 60
"""

import sys
import threading

serving = threading.local()
shutdown = threading.Event()


def serve(ready):
    serving.session = bytearray(96 * 1024)  # born here
    ready.set()
    shutdown.wait()


def main(steps):
    for step in range(steps):
        ready = threading.Event()
        threading.Thread(target=serve, args=(ready,), daemon=True).start()
        ready.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
