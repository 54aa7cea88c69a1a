"""Reads pickles that hold nothing but plain data, and refuses every other one before any of it is loaded.

Two walls. A scan walks the opcodes of the whole file and lets pass only those that build None, booleans, numbers, text,
bytes, lists, tuples and dicts; an opcode that names a class or calls something, a length beyond the file, a memo
number beyond the entries made so far (the unpickler would make room for it) and nesting beyond ``DEEPEST`` end it with
the opcode and its place. Then Python's own unpickler loads the bytes, with every look-up of a global refused again.
Cost: O(bytes); the scan is compiled, with a twin here.
"""

from __future__ import annotations

import gc
import gzip
import io
import pickle
import pickletools
import zlib
from pathlib import Path
from typing import Any

from memfit import _core
from memfit.errors import TraceError

DEEPEST = 200
LARGEST_FILE = 1 << 33
_LONGEST_LINE = 1 << 20
_LONGEST_NUMBER = 1 << 10
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_PUSHES = {"NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_DICT"}
_FIXED = {"BININT": 4, "BININT1": 1, "BININT2": 2, "BINFLOAT": 8}
_COUNTED = {
    "LONG1": 1, "LONG4": 4, "BINSTRING": 4, "SHORT_BINSTRING": 1, "BINBYTES": 4, "SHORT_BINBYTES": 1, "BINBYTES8": 8,
    "SHORT_BINUNICODE": 1, "BINUNICODE": 4, "BINUNICODE8": 8,
}  # fmt: skip
_LINES = {"INT", "LONG", "STRING", "UNICODE", "FLOAT", "GET", "PUT"}
_MEMO = {"BINGET": 1, "LONG_BINGET": 4, "BINPUT": 1, "LONG_BINPUT": 4}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_TAKES = {"APPEND": 1, "SETITEM": 2, "POP": 1}
_TO_MARK = {"TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS", "POP_MARK"}
_REASONS = ("", "class", "unknown", "after", "number", "memo", "deep", "truncated", "structure")


class _RefusedError(Exception):
    """Why an opcode is refused."""


class _Scan:
    """The stack as the scan sees it: how deep tuples are nested in each value; the memo likewise."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0
        self.stack: list[int] = []
        self.memo: list[int] = []
        self.marks: list[int] = []

    def take(self, count: int) -> list[int]:
        if len(self.stack) < (self.marks[-1] if self.marks else 0) + count:
            raise _RefusedError("structure")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def take_to_mark(self) -> list[int]:
        if not self.marks:
            raise _RefusedError("structure")
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def number(self, width: int) -> int:
        end = self.position + width
        if end > len(self.data):
            raise _RefusedError("truncated")
        value = int.from_bytes(self.data[self.position : end], "little")
        self.position = end
        return value

    def nest(self, inside: list[int]) -> None:
        if max(inside, default=0) >= DEEPEST:
            raise _RefusedError("deep")
        self.stack.append(max(inside, default=0) + 1)

    def recall(self, number: int) -> None:
        if number >= len(self.memo):
            raise _RefusedError("memo")
        self.stack.append(self.memo[number])

    def remember(self, number: int) -> None:
        if number > len(self.memo):
            raise _RefusedError("memo")
        top = self.take(1)
        self.stack += top
        self.memo[number : number + 1] = top

    def line(self, name: str) -> None:
        end = self.data.find(b"\n", self.position, self.position + _LONGEST_LINE)
        if end < 0:
            raise _RefusedError("truncated")
        text = self.data[self.position : end]
        if name in ("GET", "PUT"):
            if not (text.isdigit() and len(text) < 10):
                raise _RefusedError("memo")
            (self.recall if name == "GET" else self.remember)(int(text))
        else:
            if name in ("INT", "LONG") and len(text) > _LONGEST_NUMBER:
                raise _RefusedError("number")
            self.stack.append(0)
        self.position = end + 1

    def counted(self, name: str) -> None:
        length = self.number(_COUNTED[name])
        if name in ("LONG1", "LONG4") and length > _LONGEST_NUMBER:
            raise _RefusedError("number")
        if length > len(self.data) - self.position:
            raise _RefusedError("truncated")
        self.position += length
        self.stack.append(0)

    def step(self, name: str) -> None:
        """One opcode other than STOP, its code already read."""
        if name in _COUNTED:
            self.counted(name)
        elif name in _FIXED:
            self.number(_FIXED[name])
            self.stack.append(0)
        elif name in _PUSHES:
            self.stack.append(0)
        elif name in _MEMO:
            (self.recall if name.endswith("GET") else self.remember)(self.number(_MEMO[name]))
        elif name == "MEMOIZE":
            self.remember(len(self.memo))
        elif name in _TUPLES:
            self.nest(self.take(_TUPLES[name]))
        elif name in _TO_MARK:
            inside = self.take_to_mark()
            if name == "TUPLE":
                self.nest(inside)
            elif name in ("LIST", "DICT"):
                self.stack.append(0)
        elif name in _TAKES:
            self.take(_TAKES[name])
        elif name == "MARK":
            if len(self.marks) >= DEEPEST:
                raise _RefusedError("deep")
            self.marks.append(len(self.stack))
        elif name == "DUP":
            self.stack += self.take(1) * 2
        elif name in _LINES:
            self.line(name)
        elif name in ("PROTO", "FRAME"):
            self.number(1 if name == "PROTO" else 8)
        else:
            raise _RefusedError("class" if name else "unknown")


def scan_twin(data: bytes) -> tuple[int, str]:
    """(place, why) of the first opcode that is refused; (-1, "") where the pickle is plain. The twin of the compiled scan."""
    scan = _Scan(data)
    while scan.position < len(data):
        begun = scan.position
        scan.position += 1
        name = _NAMES.get(data[begun], "")
        if name == "STOP":
            if scan.position < len(data):
                return scan.position, "after"
            return (-1, "") if len(scan.stack) == 1 and not scan.marks else (begun, "structure")
        try:
            scan.step(name)
        except _RefusedError as refusal:
            return begun, str(refusal)
    return len(data), "truncated"


def scan(data: bytes) -> tuple[int, str]:
    """See ``scan_twin``; compiled."""
    place, why = _core.scan_pickle(data)
    return place, _REASONS[why]


_WHY = {
    "class": "it asks for a class or a call ({name} at byte {place}); only plain data is read",
    "unknown": "byte {place} is no pickle opcode",
    "after": "there is something after its end, at byte {place}",
    "number": "the number at byte {place} is longer than any size or address",
    "memo": "{name} at byte {place} names something that was not stored before",
    "deep": f"it is nested deeper than {DEEPEST} levels at byte {{place}}",
    "truncated": "it ends in the middle, at byte {place}",
    "structure": "{name} at byte {place} takes more than there is",
}


class _Refusing(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, key: Any) -> Any:
        raise pickle.UnpicklingError("it asks for a persistent object")


def load_plain(path: str | Path, largest: int = LARGEST_FILE) -> Any:
    """What a pickle of plain data holds; it may be packed with gzip.

    Raises:
        TraceError: the file cannot be read, is larger than ``largest`` bytes, is cut off, or asks for anything else.
    """
    try:
        size = Path(path).stat().st_size
        if size > largest:
            raise TraceError(str(path), f"it has {size} bytes; pickles above {largest} are not read")
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                data = file.read(largest + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(str(path), f"it is no whole gzip file ({error})") from error
    except OSError as error:
        raise TraceError(str(path), error.strerror or str(error)) from error
    if len(data) > largest:
        raise TraceError(str(path), f"it unpacks to more than {largest} bytes; such pickles are not read")
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
