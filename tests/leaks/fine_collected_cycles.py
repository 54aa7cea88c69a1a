"""No leak: objects in cycles wait for the collector, which comes by as it should.

source: jacobgil/pytorch-grad-cam#88
holder: none
steps: 250
"""

import sys


class Node:
    def __init__(self, parent):
        self.parent, self.values, self.children = parent, bytearray(4096), []
        if parent is not None:
            parent.children.append(self)


def transform():
    root = Node(None)
    for _ in range(12):
        Node(root)
    return len(root.children)


def main(steps):
    total = 0
    for step in range(steps):
        total += transform()
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
