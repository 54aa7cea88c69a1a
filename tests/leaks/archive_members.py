"""Results are streamed into an archive that stays open; the archive keeps a record of every member that it wrote.

source: python/cpython#139960
leaks: the records of the members
holder: members
seen: no
kind: container
birth: the line that makes the record
steps: 200
"""

import io
import sys
import tarfile


class Discard(io.RawIOBase):
    def __init__(self):
        self.written = 0

    def writable(self):
        return True

    def write(self, data):
        self.written += len(data)
        return len(data)

    def tell(self):
        return self.written


def main(steps):
    target = Discard()
    archive = tarfile.open(fileobj=target, mode="w|")
    for step in range(steps):
        for part in range(12):
            text = f"result {step} {part}\n".encode() * 20
            record = tarfile.TarInfo(f"results/{step:06d}/{part:03d}.txt")  # born here
            record.size = len(text)
            archive.addfile(record, io.BytesIO(text))
    print(target.written)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
