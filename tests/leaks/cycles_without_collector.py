r"""Each sample goes through a small tree whose nodes know their parent, and the training loop has switched the collector off.

source: facebookresearch/dinov3#150
leaks: one tree with its arrays a step
holder: Node|\.parent|\.children
kind: reference-cycle
birth: the line that makes a node's array
steps: 150
"""

import gc
import sys

import numpy as np


class Node:
    def __init__(self, parent, values):
        self.parent, self.values, self.children = parent, values, []
        if parent is not None:
            parent.children.append(self)


def transform(size):
    root = Node(None, None)
    for _ in range(4):
        Node(root, np.random.default_rng(0).random(size))  # born here
    return sum(float(child.values.mean()) for child in root.children)


def main(steps):
    gc.disable()
    total = 0.0
    for step in range(steps):
        total += transform(4096)
    print(total / steps)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
