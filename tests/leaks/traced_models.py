"""Each candidate of a search is traced; the compilation unit of the process keeps every graph with its constants.

source: pytorch/pytorch#86537
leaks: traced graphs and the tensors in them
holder: jit|compilation.?unit
kind: compile-cache
birth: the line that traces
steps: 60
"""

import sys
import warnings

import torch


def candidate(step):
    table = torch.full((160, 160), float(step))

    def forward(values):
        return (values @ table).relu() + step

    return forward


def main(steps):
    warnings.simplefilter("ignore")
    values = torch.randn(2, 160)
    for step in range(steps):
        traced = torch.jit.trace(candidate(step), (values,), check_trace=False)  # born here
        traced(values)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
