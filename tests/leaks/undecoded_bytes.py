"""A decoder appends what arrives to its buffer and drops the start only when a message is incomplete, which never happens.

source: ArduPilot/pymavlink#130
leaks: the bytes of every message
holder: decoder[.]buffer|[.]buffer
kind: growing-object
birth: the line that extends the buffer
seen: no
steps: 300
"""

import sys


class Decoder:
    def __init__(self):
        self.buffer = bytearray()
        self.start = 0

    def feed(self, data):
        self.buffer.extend(data)  # born here
        if len(self.buffer) - self.start >= 4:
            size = int.from_bytes(self.buffer[self.start : self.start + 4], "little")
            if len(self.buffer) - self.start >= size:
                message = bytes(self.buffer[self.start + 4 : self.start + size])
                self.start += size
                return message
        self.buffer = self.buffer[self.start :]
        self.start = 0
        return None


def main(steps):
    decoder, seen = Decoder(), 0
    for step in range(steps):
        size = 30_000 + step % 5
        seen += len(decoder.feed(size.to_bytes(4, "little") + bytes(size - 4)))
    print(seen)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
