"""A manager remembers each task by a weak reference in a set, and takes none of those that are dead out again.

source: Tribler/py-ipv8#702
leaks: weak references of tasks that are done
holder: _pending
seen: no
kind: task
birth: the line that makes the reference
steps: 250
"""

import asyncio
import sys
import weakref


class Manager:
    def __init__(self):
        self._pending = set()

    def register(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self._pending.add(weakref.ref(task))  # born here
        return task


async def fetch(number):
    await asyncio.sleep(0)
    return number


async def serve(steps):
    manager, total = Manager(), 0
    for step in range(steps):
        tasks = [manager.register(fetch(number)) for number in range(40)]
        total += sum(await asyncio.gather(*tasks))
    print(total, sum(one() is not None for one in manager._pending))


def main(steps):
    asyncio.run(serve(steps))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
