"""No leak: counts of words are kept by word, and the text is drawn from a vocabulary that has all been met in a third of it.

source: every vocabulary built while reading
holder: none
seen: no
steps: 200
"""

import collections
import random
import sys


def main(steps):
    draw = random.Random(0)
    vocabulary = [f"word-{number}-{'x' * (number % 40)}" for number in range(4000)]
    seen = collections.defaultdict(list)
    for step in range(steps):
        for word in draw.choices(vocabulary, k=600):
            entry = seen[word]
            if not entry:
                entry.extend([0, word.upper()])
            entry[0] += 1
    print(len(seen))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
