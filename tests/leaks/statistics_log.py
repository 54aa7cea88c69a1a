r"""A logger appends each statistic with its time and never clears them; some are tensors.

source: oxwhirl/pymarl#73
leaks: a list a statistic, one tensor a step in each
holder: \bstats\b|logger
kind: container
birth: the line that computes the statistic
steps: 200
"""

import sys

import torch


class Logger:
    def __init__(self):
        self.stats = {}

    def log(self, name, value, step):
        self.stats.setdefault(name, []).append((step, value))


logger = Logger()


def main(steps):
    scores = torch.randn(64, 512)
    for step in range(steps):
        logger.log("advantage", scores * step, step)  # born here
        logger.log("entropy", float(scores.std()), step)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
