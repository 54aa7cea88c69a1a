"""A runtime has one lock for each key of each stream; the end of a stream drops its state, and leaves the locks.

source: aden-hive/hive#2584
leaks: locks with their keys
holder: _key_locks
seen: no
kind: request-cache
birth: the line that makes the lock
steps: 150
"""

import asyncio
import sys


class Runtime:
    def __init__(self):
        self._state, self._key_locks = {}, {}

    def lock(self, stream, key):
        if (stream, key) not in self._key_locks:
            self._key_locks[stream, key] = asyncio.Lock()  # born here
        return self._key_locks[stream, key]

    async def write(self, stream, key, value):
        async with self.lock(stream, key):
            self._state.setdefault(stream, {})[key] = value
            await asyncio.sleep(0)

    def cleanup(self, stream):
        self._state.pop(stream, None)


async def execution(runtime, number):
    stream = f"stream-{number}"
    await asyncio.gather(*(runtime.write(stream, f"{stream}/key-{k}", bytes(1000)) for k in range(50)))
    runtime.cleanup(stream)


async def main(steps):
    runtime = Runtime()
    for step in range(steps):
        await execution(runtime, step)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 150))
