"""No leak: log text is collected in a stream in memory, which is sent and emptied every 30 steps.

source: hatchet-dev/hatchet#4587
holder: none
steps: 300
"""

import io
import sys


def main(steps):
    stream, sent = io.StringIO(), 0
    for step in range(steps):
        for line in range(20):
            stream.write(f"step {step} line {line}: {'.' * 300}\n")
        if step % 30 == 29:
            sent += len(stream.getvalue())
            stream.seek(0)
            stream.truncate()
    print(sent)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
