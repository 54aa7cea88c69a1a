"""Element types: the numbers that ONNX has for them, and their names here."""

from __future__ import annotations

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4_e2m1fn", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2",
}  # fmt: skip
_NUMBERS = {name: number for number, name in _DTYPES.items()}


def dtype_name(number: int) -> str:
    """ONNX's number of an element type -> its name here; "undefined" for none."""
    return _DTYPES.get(number, "undefined")


def dtype_number(name: str) -> int:
    """The name of an element type -> ONNX's number; 0 for none."""
    return _NUMBERS.get(name, 0)
