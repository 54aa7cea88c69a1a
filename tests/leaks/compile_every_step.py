"""A fresh function is compiled for each step: guards, code objects and graphs of all of them stay.

source: pytorch/pytorch#130776
leaks: one compiled function with the constant it closes over a step
holder: functions|dynamo|compile
kind: compile-cache
birth: the line that makes the closed-over table
steps: 60
"""

import sys

import torch


class Pipeline:
    def __init__(self):
        self.functions = {}

    def stage(self, step):
        table = torch.full((128, 128), float(step))  # born here

        def apply(values):
            return values + table[:4, :4]

        self.functions[step] = torch.compile(apply, backend="eager")
        return self.functions[step]


def main(steps):
    torch._dynamo.config.recompile_limit = 10_000
    pipeline = Pipeline()
    values = torch.randn(4, 4)
    for step in range(steps):
        pipeline.stage(step)(values)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
