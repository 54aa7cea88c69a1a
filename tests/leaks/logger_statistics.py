"""The logger of an experiment keeps every statistic as numbers in arrays, which are written out and never cleared.

source: oxwhirl/pymarl#73
leaks: numbers in one array per statistic
holder: stats|series
seen: no
kind: growing-object
birth: the line that adds the numbers
steps: 200
"""

import array
import sys


class Series:
    def __init__(self):
        self.values = array.array("d")


class Logger:
    def __init__(self, names):
        self.stats = {name: Series() for name in names}

    def log(self, name, values):
        self.stats[name].values.extend(values)  # born here
        return len(self.stats[name].values)


class Experiment:
    def __init__(self):
        self.logger = Logger(["return", "length", "loss"])

    def episode(self, step):
        return sum(self.logger.log(name, [step * 0.5 + k for k in range(400)]) for name in ("return", "length", "loss"))


def main(steps):
    experiment, total = Experiment(), 0
    for step in range(steps):
        total += experiment.episode(step)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
