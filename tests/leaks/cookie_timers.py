"""A jar schedules the expiry of every cookie that it gets, hours ahead: the loop keeps a timer and its arguments for each.

source: aio-libs/aiohttp#1029
leaks: timers of the event loop
holder: _scheduled|loop|Timer
seen: no
kind: task
birth: the line that schedules
steps: 200
"""

import asyncio
import sys


class Jar:
    def __init__(self, loop):
        self.loop, self.cookies = loop, {}

    def store(self, host, value):
        self.cookies[host] = value
        self.loop.call_later(36_000, self.expire, host, bytes(value))  # born here

    def expire(self, host, value):
        if self.cookies.get(host) == value:
            del self.cookies[host]


async def crawl(steps):
    jar = Jar(asyncio.get_running_loop())
    for step in range(steps):
        for host in range(5):
            jar.store(f"host-{host}.example.org", bytearray(3000))
        await asyncio.sleep(0)
    print(len(jar.cookies))


def main(steps):
    asyncio.run(crawl(steps))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
