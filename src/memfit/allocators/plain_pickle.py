"""Reads pickles that hold nothing but plain data, and refuses every other one before any of it is loaded.

Two walls. A scan walks the opcodes of the whole file and lets pass only those that build None, booleans, numbers, text,
bytes, lists, tuples and dicts; an opcode that names a class or calls something, a length beyond the file, a memo
number beyond the entries made so far (the unpickler would make room for it) and nesting beyond ``DEEPEST`` end it with
the opcode and its place. Then Python's own unpickler loads the bytes, with every look-up of a global refused again.
Cost: O(bytes); the scan is compiled, with a twin here.
"""

from __future__ import annotations

import gc
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

from memfit.errors import TraceError

DEEPEST = 200
LARGEST_FILE = 1 << 33
_ALLOWED = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 NONE "
    "NEWTRUE NEWFALSE UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT EMPTY_LIST APPEND APPENDS LIST "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS POP DUP MARK "
    "POP_MARK GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE PROTO FRAME STOP"
).split()
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_CODES = {opcode.name: ord(opcode.code) for opcode in pickletools.opcodes}
_FIXED = {"BININT": 4, "BININT1": 1, "BININT2": 2, "BINFLOAT": 8, "BINGET": 1, "LONG_BINGET": 4, "PROTO": 1, "FRAME": 8}
_COUNTED = {
    "LONG1": 1, "LONG4": 4, "BINSTRING": 4, "SHORT_BINSTRING": 1, "BINBYTES": 4, "SHORT_BINBYTES": 1, "BINBYTES8": 8,
    "SHORT_BINUNICODE": 1, "BINUNICODE": 4, "BINUNICODE8": 8,
}  # fmt: skip
_LINES = ("INT", "LONG", "STRING", "UNICODE", "FLOAT", "GET", "PUT")
_LONGEST_LINE = 1 << 20
_LONGEST_NUMBER = 1 << 10


def scan_twin(data: bytes) -> tuple[int, str]:
    """(place, why) of the first opcode that is refused; (-1, "") where the pickle is plain. The twin of the compiled scan."""
    position, memoised, marks, size = 0, 0, 0, len(data)
    while position < size:
        code, begun = data[position], position
        name = _NAMES.get(code, "")
        position += 1
        if name not in _ALLOWED:
            return begun, "class" if name else "unknown"
        if name == "STOP":
            return (-1, "") if position == size else (position, "after")
        if name in _FIXED:
            position += _FIXED[name]
        elif name in _COUNTED:
            width = _COUNTED[name]
            length = int.from_bytes(data[position : position + width], "little")
            if name in ("LONG1", "LONG4") and length > _LONGEST_NUMBER:
                return begun, "number"
            position += width + length
        elif name in _LINES:
            end = data.find(b"\n", position, position + _LONGEST_LINE)
            if end < 0:
                return begun, "truncated"
            if name in ("INT", "LONG") and end - position > _LONGEST_NUMBER:
                return begun, "number"
            if name == "PUT":
                text = data[position:end]
                if not (text.isdigit() and len(text) < 10 and int(text) <= memoised):
                    return begun, "memo"
                memoised += 1
            position = end + 1
        elif name in ("BINPUT", "LONG_BINPUT"):
            width = 1 if name == "BINPUT" else 4
            if int.from_bytes(data[position : position + width], "little") > memoised:
                return begun, "memo"
            memoised += 1
            position += width
        elif name == "MEMOIZE":
            memoised += 1
        elif name == "MARK":
            marks += 1
            if marks > DEEPEST:
                return begun, "deep"
        elif name in ("APPENDS", "LIST", "TUPLE", "DICT", "SETITEMS", "POP_MARK"):
            marks -= 1
        if position > size:
            return begun, "truncated"
    return size, "truncated"


_WHY = {
    "class": "it asks for a class or a call ({name} at byte {place}); only plain data is read",
    "unknown": "byte {place} is no pickle opcode",
    "after": "there is something after its end, at byte {place}",
    "number": "the number at byte {place} is longer than any size or address",
    "memo": "{name} at byte {place} asks for room far beyond what was stored",
    "deep": f"it is nested deeper than {DEEPEST} levels at byte {{place}}",
    "truncated": "it ends in the middle, at byte {place}",
}


class _Refusing(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, key: Any) -> Any:
        raise pickle.UnpicklingError("it asks for a persistent object")


def load_plain(path: str | Path, largest: int = LARGEST_FILE) -> Any:
    """What a pickle of plain data holds.

    Raises:
        TraceError: the file cannot be read, is larger than ``largest`` bytes, is cut off, or asks for anything else.
    """
    try:
        size = Path(path).stat().st_size
        if size > largest:
            raise TraceError(str(path), f"it has {size} bytes; pickles above {largest} are not read")
        data = Path(path).read_bytes()
    except OSError as error:
        raise TraceError(str(path), error.strerror or str(error)) from error
    return loads_plain(data, str(path))


def loads_plain(data: bytes, where: str = "the pickle") -> Any:
    """What the bytes of a pickle of plain data hold; see ``load_plain``."""
    place, why = scan(data)
    if why:
        name = _NAMES.get(data[place], "") if place < len(data) else ""
        raise TraceError(where, _WHY[why].format(name=name, place=place))
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _Refusing(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError,
            MemoryError, RecursionError) as error:  # fmt: skip
        raise TraceError(where, f"it is no whole pickle of plain data ({error})") from error
    finally:
        if collecting:
            gc.enable()


scan = scan_twin
