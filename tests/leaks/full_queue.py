"""Requests wait in a queue without a bound that is filled faster than the model empties it.

source: deep-learning-with-pytorch/dlwpt-code#26
leaks: requests with their images
holder: queue
seen: no
kind: request-cache
birth: the line that makes the image
steps: 200
"""

import asyncio
import sys

import torch


class Batcher:
    def __init__(self):
        self.queue = asyncio.Queue()

    async def submit(self, number):
        image = torch.zeros(3, 64, 80)  # born here
        await self.queue.put({"number": number, "input": image})


async def main(steps):
    batcher = Batcher()
    for step in range(steps):
        await batcher.submit(step)
        if step % 3 == 0:
            await batcher.queue.get()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
