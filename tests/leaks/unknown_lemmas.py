"""A word net answers for words that it does not know by reading a defaultdict, and reading puts an entry there.

source: nltk/nltk#2047
leaks: entries of unknown words
holder: _lang_data
seen: no
kind: container
birth: the line that reads
steps: 200
"""

import collections
import sys


class WordNet:
    def __init__(self):
        self._lang_data = {"eng": [collections.defaultdict(set), collections.defaultdict(list)]}
        for number in range(500):
            self._lang_data["eng"][1][f"word-{number}"].append(number)

    def synsets(self, lemma, language="eng"):
        return self._lang_data[language][1][lemma]  # born here


def main(steps):
    net, known = WordNet(), 0
    for step in range(steps):
        words = [f"word-{(step * 300 + k) * 7}-{'x' * (k % 5)}" for k in range(300)]
        known += sum(bool(net.synsets(word)) for word in words)
    print(known)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
