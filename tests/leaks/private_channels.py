"""A telemetry module keeps every channel it made in a private table, also those that nobody uses any more.

source: microsoft/ApplicationInsights-Python#152
leaks: one channel with its send buffer a key
holder: _channels
kind: container
birth: the line that makes the buffer
steps: 200
"""

import sys

_channels = {}


class Channel:
    def __init__(self, key):
        self.key, self.buffer = key, bytearray(48 * 1024)  # born here


def enable(key):
    if key not in _channels:
        _channels[key] = Channel(key)
    return _channels[key]


def main(steps):
    total = 0
    for step in range(steps):
        channel = enable(f"session-{step}")
        total += len(channel.buffer)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
