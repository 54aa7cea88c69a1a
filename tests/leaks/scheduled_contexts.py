"""A process sets a context variable and schedules a call far ahead: the handle keeps a copy of the context.

source: aiidateam/aiida-core#4698
leaks: one process a scheduled call
holder: process_stack|_scheduled|TimerHandle|call_later
kind: context-variable
birth: the line that makes the process's data
steps: 200
"""

import asyncio
import contextvars
import sys

process_stack = contextvars.ContextVar("process_stack", default=())


class Process:
    def __init__(self, number):
        self.number = number
        self.data = bytearray(72 * 1024)  # born here


async def run(loop, number):
    process_stack.set((Process(number),))
    loop.call_later(3600, print, "time is up")


async def main(steps):
    loop = asyncio.get_running_loop()
    for step in range(steps):
        await asyncio.create_task(run(loop, step))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
