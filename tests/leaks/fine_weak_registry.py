"""No leak: all objects are registered, but the registry holds them weakly.

source: scrapy/scrapy#5995
holder: none
seen: no
steps: 200
"""

import sys
import weakref

import numpy as np


class Item:
    registry = weakref.WeakValueDictionary()

    def __init__(self, name):
        self.values = np.ones(12_000)
        Item.registry[name] = self


def main(steps):
    total = 0.0
    for step in range(steps):
        item = Item(f"item-{step}")
        total += float(item.values[0]) + len(Item.registry)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
