"""No leak: a cache of answers is thrown away whole when it has 150 entries, which this run reaches near its end.

source: every cache that is cleared when full
holder: none
seen: no
steps: 180
"""

import sys

MOST = 150


class Answers:
    def __init__(self):
        self.known = {}

    def ask(self, question):
        if question not in self.known:
            if len(self.known) >= MOST:
                self.known.clear()
            self.known[question] = question.encode() * 900
        return self.known[question]


def main(steps):
    answers, total = Answers(), 0
    for step in range(steps):
        total += len(answers.ask(f"what is the square of {step}?"))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 180)
