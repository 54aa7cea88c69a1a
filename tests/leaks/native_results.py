"""A C library returns a buffer that its caller must free; the Python binding never does.

source: myhub/tr#18
leaks: one malloc block a call, with no Python object behind it
holder: malloc|recognise|native memory taken at
kind: native
birth: the line that calls the library
steps: 250
"""

import ctypes
import sys

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.memset.restype = ctypes.c_void_p
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def recognise(size):
    result = library.malloc(size)  # born here
    library.memset(result, 1, size)
    return bytes(ctypes.cast(result, ctypes.POINTER(ctypes.c_char))[:8])


def main(steps):
    found = 0
    for step in range(steps):
        found += len(recognise(96 * 1024))
    print(found)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
