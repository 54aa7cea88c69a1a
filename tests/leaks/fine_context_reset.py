"""No leak: each request sets variables of its context and sets them back when it is done.

source: NoneGG/aredis#120
holder: none
steps: 300
"""

import contextvars
import sys

USER = contextvars.ContextVar("user", default=None)


def handle(number):
    token = USER.set({"number": number, "body": bytearray(20_000)})
    try:
        context = contextvars.copy_context()
        return context.run(lambda: len(USER.get()["body"]))
    finally:
        USER.reset(token)


def main(steps):
    total = 0
    for step in range(steps):
        total += handle(step)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
