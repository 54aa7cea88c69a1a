"""No leak: log records are held back in memory and handed on sixty at a time.

source: every use of logging.handlers.MemoryHandler
holder: none
seen: no
steps: 260
"""

import io
import logging
import logging.handlers
import sys


def main(steps):
    target = logging.StreamHandler(io.StringIO())
    handler = logging.handlers.MemoryHandler(60, target=target)
    logger = logging.getLogger("service")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    for step in range(steps):
        logger.info("request %s: %s", step, f"answer {step} " * 400)
        if not handler.buffer:
            target.setStream(io.StringIO())
    print(len(handler.buffer))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 260)
