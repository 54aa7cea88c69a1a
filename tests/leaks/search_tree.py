"""A search goes on from the child that was played, and the child knows its parent: the whole tree of the game stays.

source: opendilab/LightZero#492
leaks: the nodes of every search, with their evaluations
holder: root|parent
kind: growing-object
birth: the line that makes the evaluation
seen: no
steps: 150
"""

import sys

import numpy


class Node:
    def __init__(self, parent):
        self.parent, self.children, self.visits = parent, [], 0
        self.policy = None

    def expand(self, generator):
        self.policy = generator.random(256)  # born here
        self.children = [Node(self) for _ in range(8)]


def search(root, generator, playouts=6):
    for _ in range(playouts):
        node = root
        while node.children:
            node.visits += 1
            node = node.children[int(generator.integers(len(node.children)))]
        node.expand(generator)
    return max(root.children, key=lambda child: child.visits)


def main(steps):
    generator, root = numpy.random.default_rng(0), Node(None)
    for _ in range(steps):
        root = search(root, generator)
    print(root.visits)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
