"""Bytes: parse what a person writes, print what a person reads, align.

Sizes are integer bytes everywhere in memfit. Text sizes follow IEC: ``2GiB``, ``512 MiB``, ``64KiB``, ``100B``;
``GB``/``MB``/``KB`` are decimal (1e9, 1e6, 1e3); a bare number is bytes. Time is float seconds.
"""

from __future__ import annotations

import re


class SizeError(ValueError):
    """The text is no size. ``text`` holds what was given."""

    def __init__(self, text: str) -> None:
        super().__init__(f"not a size: {text!r}; write a positive size such as 2GiB, 512MiB or 100000000")
        self.text = text


_FACTOR = {
    "": 1, "b": 1,
    "k": 1024, "kib": 1024, "m": 1024**2, "mib": 1024**2, "g": 1024**3, "gib": 1024**3, "t": 1024**4, "tib": 1024**4,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")


def parse_bytes(text: str | int) -> int:
    """Bytes of a size such as ``2GiB``; an ``int`` passes through.

    Raises:
        SizeError: the text is no positive size.

    >>> parse_bytes("2GiB"), parse_bytes("512 MiB"), parse_bytes("1.5 MB")
    (2147483648, 536870912, 1500000)
    """
    if isinstance(text, int) and not isinstance(text, bool):
        value: float = text
    else:
        match = _SIZE.fullmatch(str(text))
        if match is None or match.group(2).lower() not in _FACTOR:
            raise SizeError(str(text))
        value = float(match.group(1)) * _FACTOR[match.group(2).lower()]
    if value <= 0:
        raise SizeError(str(text))
    return int(value)


def format_bytes(nbytes: float) -> str:
    """A size as people read it: three significant digits, IEC unit.

    >>> format_bytes(1536), format_bytes(0), format_bytes(-2 * 1024**3)
    ('1.50 KiB', '0 B', '-2.00 GiB')
    """
    sign = "-" if nbytes < 0 else ""
    value = abs(float(nbytes))
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    unit = units[0]
    if unit == "B":
        return f"{sign}{int(value)} B"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{sign}{value:.{digits}f} {unit}"


def format_seconds(seconds: float) -> str:
    """A duration as people read it.

    >>> format_seconds(0.0123), format_seconds(75)
    ('12.3 ms', '1 min 15 s')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def align(nbytes: int, alignment: int) -> int:
    """``nbytes`` rounded up to a multiple of ``alignment`` (bytes, a positive integer).

    >>> align(1, 64), align(64, 64), align(0, 64)
    (64, 64, 0)
    """
    return -(-nbytes // alignment) * alignment
