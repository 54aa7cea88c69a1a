"""The product with packed weights: flat arrays in, the native kernel of `native/core/lowbit_product.h` behind them.

The slow twin is ``passes.quantize.product_twin``; `tests/property/test_lowbit_product.py` runs both.
"""

from __future__ import annotations

from typing import Any

from memfit import _core


def activation_bytes(tokens: int, columns: int) -> int:
    """Scratch bytes that ``product`` needs for ``tokens`` inputs of ``columns`` values."""
    return int(_core.lowbit_activation_bytes(tokens, columns))


def product(
    tiles: Any, scales: Any, zeros: Any, shape: tuple[int, int, int, int], x: Any, bias: Any, out: Any, scratch: Any,
    threads: int,
) -> None:  # fmt: skip
    """``out`` = ``x`` times the packed weight transposed, plus ``bias`` (or None). Threads do not change the result.

    Args:
        tiles, scales, zeros: the flat arrays of a ``passes.quantize.Packed``.
        shape: rows, columns, bits and group of the weight.
        x: flat float32, tokens x columns; ``out`` flat float32, tokens x rows; ``scratch`` of ``activation_bytes``.

    Raises:
        ValueError: arrays that do not fit together.
    """
    rows, columns, bits, group = shape
    _core.lowbit_product(
        tiles, scales, zeros, rows, columns, bits, group, x, len(x) // columns, bias, out, scratch, threads
    )
