"""No leak: requests set a timer for their time limit and cancel it when they are done; the loop drops cancelled timers in bulk.

source: aio-libs/aiohttp#1029
holder: none
steps: 300
"""

import asyncio
import sys


async def serve(steps):
    loop, total = asyncio.get_running_loop(), 0
    for step in range(steps):
        for part in range(5):
            body = bytearray(4000)
            timer = loop.call_later(300, body.clear)
            total += len(body)
            timer.cancel()
        await asyncio.sleep(0)
    print(total)


def main(steps):
    asyncio.run(serve(steps))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
