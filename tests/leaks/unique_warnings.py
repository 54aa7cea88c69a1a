"""Warnings with a number in their text are all different, and the module's registry remembers each text.

source: POSYDON-code/POSYDON#364
leaks: one entry with its text a warning
holder: __warningregistry__
kind: container
birth: the line that warns
steps: 300
"""

import os
import sys
import warnings


def check(star, track):
    warnings.warn(f"star {star}: track {track} is outside of the grid" + " " * 400, stacklevel=1)  # born here


def main(steps):
    sys.stderr = open(os.devnull, "w")
    for step in range(steps):
        for star in range(40):
            check(star, step)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
