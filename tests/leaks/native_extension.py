"""A small C library keeps a decoded frame a call in a list of its own that nothing ever empties.

source: gvalkov/python-evdev#14
leaks: one node of a C linked list a call
holder: decode|frames|native memory taken at
kind: native
birth: the line that calls the library
steps: 250
"""

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
struct frame { struct frame *next; char pixels[49152]; };
static struct frame *frames;
int decode_frame(int value) {
    struct frame *one = malloc(sizeof *one);
    memset(one->pixels, value, sizeof one->pixels);
    one->next = frames;
    frames = one;
    return one->pixels[17];
}
"""


def build(folder):
    source, built = Path(folder, "frames.c"), Path(folder, "frames.so")
    source.write_text(SOURCE)
    subprocess.run(["cc", "-g", "-O1", "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
    return ctypes.CDLL(str(built))


def main(steps):
    with tempfile.TemporaryDirectory() as folder:
        library = build(folder)
        total = 0
        for step in range(steps):
            total += library.decode_frame(step % 100)  # born here
        print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
