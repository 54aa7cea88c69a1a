"""Blocks of a document are read through a pointer to an array type of their size: ctypes keeps every pointer type.

source: pypdfium2-team/pypdfium2#346
leaks: pointer types and their array types
holder: _pointer_type_cache|POINTER
seen: no
kind: class-registry
birth: the line that makes the types
steps: 150
"""

import ctypes
import io
import sys


def read_block(stream, address, size):
    block = ctypes.cast(address, ctypes.POINTER(ctypes.c_ubyte * size))  # born here
    return stream.readinto(block.contents)


def main(steps):
    buffer = ctypes.create_string_buffer(1 << 20)
    document = io.BytesIO(bytes(1 << 20))
    total = 0
    for step in range(steps):
        for part in range(20):
            document.seek(0)
            total += read_block(document, ctypes.addressof(buffer), 1000 + step * 20 + part)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
