"""A logger of its own for every connection: the logging module keeps loggers by name for ever.

source: DIRACGrid/DIRAC#5280
leaks: loggers, with the connection that the filter of each closes over
holder: loggerDict|getLogger|logging
seen: no
kind: logging
birth: the line that makes the connection's buffer
steps: 150
"""

import logging
import sys

root = logging.getLogger("server")


class Connection:
    def __init__(self, number):
        self.buffer = bytearray(64 * 1024)  # born here
        self.log = root.getChild(f"connection-{number}")
        self.log.addFilter(self.tag)

    def tag(self, record):
        record.size = len(self.buffer)
        return True


def main(steps):
    for step in range(steps):
        connection = Connection(step)
        connection.log.debug("open")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
