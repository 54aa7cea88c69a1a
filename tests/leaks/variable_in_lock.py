"""Every lock makes a context variable of its own; the context keeps each variable that was ever set in it, and its value.

source: NoneGG/aredis#120
leaks: context variables and tokens
holder: context
seen: no
kind: context-variable
birth: the line that sets the variable
steps: 150
"""

import contextvars
import sys


class Lock:
    def __init__(self, name):
        self.name = name
        self.token = contextvars.ContextVar(f"token-{name}", default=None)

    def acquire(self):
        self.token.set({"owner": self.name, "proof": bytearray(4000)})  # born here
        return True

    def release(self):
        return self.token.get() is not None


def main(steps):
    released = 0
    for step in range(steps):
        for part in range(5):
            lock = Lock(f"{step}/{part}")
            lock.acquire()
            released += lock.release()
    print(released)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
