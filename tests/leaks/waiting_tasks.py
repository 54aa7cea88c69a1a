"""Every page starts a task that waits for an event which is never set.

source: zauberzeug/nicegui#5803
leaks: tasks with the page that each of them serves
holder: task|_waiters|deleted
kind: task
birth: the line that makes the page's content
steps: 200
"""

import asyncio
import sys


class Application:
    def __init__(self):
        self.deleted = asyncio.Event()


async def watch(application, content):
    await application.deleted.wait()
    content.clear()


async def page(application, number):
    content = bytearray(64 * 1024)  # born here
    asyncio.create_task(watch(application, content))  # noqa: RUF006
    await asyncio.sleep(0)


async def main(steps):
    application = Application()
    for step in range(steps):
        await page(application, step)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
