"""A cache counts the items in its lists against its bound; lists without items count as nothing and are never dropped.

source: matrix-org/synapse#9028
leaks: entries with empty results
holder: _entries
seen: no
kind: request-cache
birth: the line that stores the result
steps: 200
"""

import collections
import sys


class SizedCache:
    def __init__(self, max_size):
        self._entries, self.max_size, self.size = collections.OrderedDict(), max_size, 0

    def get(self, key, load):
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        found = load(key)
        self._entries[key] = found  # born here
        self.size += len(found)
        while self.size > self.max_size:
            _, dropped = self._entries.popitem(last=False)
            self.size -= len(dropped)
        return found


def receipts(room):
    return [room] * 3 if room.endswith("-77") else []


def main(steps):
    cache, count = SizedCache(500), 0
    for step in range(steps):
        for number in range(200):
            count += len(cache.get(f"!room-{step}:server/{number}", receipts))
    print(count)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
