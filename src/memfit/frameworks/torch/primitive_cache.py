"""Empty oneDNN's cache of primitives: compiled kernels kept by shape, up to a number, for as long as the process lives.

A program whose shapes vary fills it for thousands of steps; that looks like a leak of native memory and is none. torch
exports no call that empties it, but its library carries the symbol, so the function is found in the file's symbol table
and called at its address. Where the table was stripped, or holds no such name, nothing is done. Cost: about 0.2 s.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from functools import cache

import numpy as np
import torch

_NAME = b"_ZN4dnnl4impl28set_primitive_cache_capacityEii"
_SIZE = b"_ZN4dnnl4impl24get_primitive_cache_sizeEPi"
_CAPACITY = 1024


def clear() -> bool:
    """Empty the cache and let it fill again; whether that could be done."""
    address = _address(_NAME)
    if address is None:
        return False
    call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)
    call(0, _CAPACITY)
    call(int(os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _CAPACITY)), _CAPACITY)
    return True


def entries() -> int | None:
    """Primitives in the cache now, None where it cannot be asked."""
    address = _address(_SIZE)
    if address is None:
        return None
    number = ctypes.c_int(0)
    status = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int))(address)(ctypes.byref(number))
    return number.value if status == 0 else None


@cache
def _address(name: bytes) -> int | None:
    """Where a function of libtorch_cpu lies in this process, from the file's symbol table and the memory map."""
    path = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so")
    try:
        value = _symbol(path, name)
        if value is None:
            return None
        with open("/proc/self/maps") as maps:
            for line in maps:
                fields = line.split()
                if len(fields) >= 6 and fields[2] == "00000000" and os.path.samefile(fields[5], path):
                    return int(fields[0].partition("-")[0], 16) + value
    except (OSError, struct.error, ValueError):
        return None
    return None


def _symbol(path: str, name: bytes) -> int | None:
    """The value of a symbol of a 64-bit little-endian ELF library whose first segment is mapped at 0."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":
            return None
        table, width, number = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58)
        sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + k * width) for k in range(number)]
        for section in sections:
            if section[1] != 2:  # SHT_SYMTAB
                continue
            names = sections[section[6]]
            at = data.find(b"\0" + name + b"\0", names[4], names[4] + names[5])
            if at < 0:
                return None
            record = np.dtype([("name", "<u4"), ("rest", "<u4"), ("value", "<u8"), ("size", "<u8")])
            symbols = np.frombuffer(data[section[4] : section[4] + section[5]], record)
            hit = np.flatnonzero(symbols["name"] == at + 1 - names[4])
            return int(symbols["value"][hit[0]]) if len(hit) else None
    return None
