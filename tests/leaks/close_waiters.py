"""Each call of a channel waits for its answer or for the end of the channel; the waiter for the end is never cancelled.

source: permitio/fastapi_websocket_rpc#16
leaks: tasks that wait for the closing event
holder: closed|_waiters|Task|Event
seen: no
kind: task
birth: the line that makes the waiter
steps: 200
"""

import asyncio
import sys


class Channel:
    def __init__(self):
        self.closed = asyncio.Event()

    async def answer(self, request):
        await asyncio.sleep(0)
        return request["number"]

    async def wait_closed(self, request):
        await self.closed.wait()
        return request

    async def call(self, request):
        waiter = asyncio.ensure_future(self.wait_closed(request))  # born here
        reply = asyncio.ensure_future(self.answer(request))
        done, _ = await asyncio.wait({reply, waiter}, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()


async def serve(steps):
    channel, total = Channel(), 0
    for step in range(steps):
        total += await channel.call({"number": step, "body": bytearray(12_000)})
    print(total)


def main(steps):
    asyncio.run(serve(steps))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
