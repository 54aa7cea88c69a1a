"""No leak: log lines go into a string buffer that is cut back to its second half whenever it exceeds half a megabyte.

source: jaseci-labs/jac#645, with the limit
holder: none
seen: no
steps: 220
"""

import io
import sys

LIMIT = 1 << 19


def main(steps):
    buffer = io.StringIO()
    for step in range(steps):
        for line in range(30):
            buffer.write(f"step {step} line {line}: {'.' * 300}\n")
        if buffer.tell() > LIMIT:
            kept = buffer.getvalue()[LIMIT // 2 :]
            buffer.seek(0)
            buffer.truncate()
            buffer.write(kept)
    print(buffer.tell())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 220)
