"""A C function takes a reference to its result and gives back one of its own: each result has one owner too many.

source: ascv/HyperLogLog#33
leaks: bytes objects that no Python object refers to
holder: dump|reference|refcount
kind: native
birth: the line that makes the result
steps: 250
"""

import ctypes
import sys

increment = ctypes.pythonapi.Py_IncRef
increment.argtypes = [ctypes.py_object]


def dump(registers):
    result = bytes(registers)  # born here
    increment(result)
    return result


def main(steps):
    registers = bytearray(64 * 1024)
    total = 0
    for step in range(steps):
        total += len(dump(registers))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 250)
