"""The last error is kept and raised again as the cause of the next: a chain of tracebacks with all their frames.

source: huggingface/trl#5776
leaks: the locals of every frame that an error passed
holder: last_error|__context__|__cause__
seen: no
kind: exception
birth: the line that makes the activations
steps: 120
"""

import sys

import torch


class Job:
    def __init__(self):
        self.last_error = None

    def attempt(self, number):
        activations = torch.randn(80, 128)  # born here
        raise MemoryError(f"attempt {number}: {activations.numel()} values do not fit") from self.last_error

    def run(self, number):
        try:
            self.attempt(number)
        except MemoryError as error:
            self.last_error = error


def main(steps):
    job = Job()
    for step in range(steps):
        job.run(step)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
