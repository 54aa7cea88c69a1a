"""No leak: a mapped file is read from start to end; its pages count as resident but are the system's to take back.

source: every first pass over a mapped data set
holder: none
seen: no
steps: 200
"""

import sys
import tempfile
from pathlib import Path

import numpy as np


def main(steps):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "values.bin")
        with path.open("wb") as file:
            for _ in range(steps):
                file.write(bytes(128 * 1024))
        values = np.memmap(path, dtype=np.uint8, mode="r")
        total = 0
        for step in range(steps):
            total += int(values[step * 131_072 : (step + 1) * 131_072].sum())
        print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
