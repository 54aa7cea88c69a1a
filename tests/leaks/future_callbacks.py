"""Each request hangs a callback on the future that is done when the server closes, and leaves it there when it is answered.

source: python/cpython#80794
leaks: a callback with its request, for every request
holder: closing|_callbacks
kind: weakref-callback
birth: the line that makes the body of the request
seen: no
steps: 200
"""

import asyncio
import functools
import sys


class Request:
    def __init__(self, number):
        self.number, self.body = number, bytearray(30_000)  # born here

    def abort(self, future):
        self.body.clear()


async def answer(request, closing):
    closing.add_done_callback(functools.partial(Request.abort, request))
    await asyncio.sleep(0)
    return len(request.body)


async def serve(steps):
    closing, total = asyncio.get_running_loop().create_future(), 0
    for step in range(steps):
        request = Request(step)
        total += await answer(request, closing)
    print(total)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
