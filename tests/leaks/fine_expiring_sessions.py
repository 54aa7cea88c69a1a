"""No leak: sessions of a service live for sixty requests; those that are older go with each new one.

source: sanic-org/sanic#1041, with the expiry
holder: none
steps: 240
"""

import asyncio
import sys


class Sessions:
    def __init__(self, lifetime):
        self.lifetime, self.now, self.open = lifetime, 0, {}

    def enter(self, user):
        self.now += 1
        self.open[user] = (self.now, bytearray(30_000))
        for old in [name for name, (began, _) in self.open.items() if began <= self.now - self.lifetime]:
            del self.open[old]


async def request(sessions, number):
    await asyncio.sleep(0)
    sessions.enter(f"user-{number}")


async def main(steps):
    sessions = Sessions(60)
    for step in range(steps):
        await request(sessions, step)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 240))
