"""No leak: patterns made from user input; the re module forgets compiled patterns beyond a bound.

source: python/cpython#102618
holder: none
seen: no
steps: 300
"""

import re
import sys


def main(steps):
    text = "the quick brown fox jumps over the lazy dog " * 20
    found = 0
    for step in range(steps):
        for word in range(6):
            found += len(re.findall(f"(w{step}|fox|dog){{1,{word + 2}}}", text))
    print(found)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
