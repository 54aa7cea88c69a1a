"""A benchmark replaces its callback's history by a longer list at every step, and what is in it is never dropped.

source: automl/DACBench#74
leaks: a list that is replaced by a longer one
holder: history
seen: no
kind: growing-object
birth: the line that makes the longer list
steps: 200
"""

import sys


class Recorder:
    def __init__(self):
        self.history = []

    def on_step(self, state):
        self.history = [*self.history, state]  # born here
        return len(self.history)


class Benchmark:
    def __init__(self):
        self.callbacks = [Recorder()]

    def step(self, number):
        state = [float(number + k) for k in range(300)]
        return sum(one.on_step(state) for one in self.callbacks)


def main(steps):
    benchmark, total = Benchmark(), 0
    for step in range(steps):
        total += benchmark.step(step)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
