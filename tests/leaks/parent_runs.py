"""A consumer's every run names the run before it as its parent, for the variable of the context was never set back.

source: langchain-ai/langsmith-sdk#2696
leaks: a chain of runs, each with its inputs
holder: PARENT_RUN|parent
seen: no
kind: context-variable
birth: the line that makes the run
steps: 150
"""

import asyncio
import contextvars
import sys

PARENT_RUN = contextvars.ContextVar("PARENT_RUN", default=None)


class Run:
    def __init__(self, name, inputs):
        self.name, self.inputs, self.parent = name, inputs, PARENT_RUN.get()
        self.outputs = None


async def traced(name, inputs):
    run = Run(name, inputs)  # born here
    PARENT_RUN.set(run)
    await asyncio.sleep(0)
    run.outputs = inputs.upper()
    return len(run.outputs)


async def main(steps):
    total = 0
    for step in range(steps):
        total += await traced("answer", f"question {step} " * 1500)
    print(total)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 150))
