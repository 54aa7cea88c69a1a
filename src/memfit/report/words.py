"""How a report says things: the same short words for a category, a shape, a type, a place, in every drawing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from memfit.ir.trace import Category
from memfit.report.summary import AliveTensor, Moment
from memfit.units import format_bytes

CATEGORY_WORDS = {category.value: category.value.replace("_", " ") for category in Category}
"""Category -> its name in text."""

TENSOR_WORDS = {
    "parameters": "parameter", "buffers": "buffer", "inputs": "input", "optimizer_state": "state",
    "gradients": "gradient", "activations": "activation", "temporaries": "temporary", "outside": "outside",
}  # fmt: skip
"""Category -> what one tensor of it is called."""

METER_WORDS = {"resident": "resident growth", "not_yet_written": "asked for, not written"}
"""Meter or band of a reconciliation -> its name, where the key alone does not say it."""

COLOURS = {
    "parameters": ("#3f6fb5", "#6c9be0"), "buffers": ("#8aa2c8", "#9fb3d6"), "inputs": ("#4fa8b8", "#64c3d3"),
    "optimizer_state": ("#8765b5", "#ab8cdb"), "gradients": ("#c9573c", "#e5806a"),
    "activations": ("#dd9a2b", "#edb755"), "temporaries": ("#6d9c4b", "#93c56f"), "outside": ("#8f8f8f", "#a8a8a8"),
}  # fmt: skip
"""Category -> colour on a light and on a dark ground, the same in the terminal and on the page."""

_DTYPES = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}


def dtype_word(dtype: str) -> str:
    """``torch.float32`` -> ``f32``.

    >>> dtype_word("torch.float32"), dtype_word("bfloat16"), dtype_word("bool"), dtype_word("float8_e4m3fn")
    ('f32', 'bf16', 'bool', 'f8_e4m3fn')
    """
    name = dtype.rpartition(".")[2]
    match = re.match(r"(bfloat|float|uint|int|complex)(\d.*)", name)
    return _DTYPES[match.group(1)] + match.group(2) if match else name


def shape_word(shape: Sequence[int], dtype: str) -> str:
    """``(4, 256)``, ``torch.float32`` -> ``4x256 f32``; a scalar is ``scalar f32``."""
    text = "x".join(map(str, shape)) or ("scalar" if dtype else "")
    return f"{text} {dtype_word(dtype)}".strip()


def what_word(tensor: AliveTensor) -> str:
    """Shape and type of a tensor; of one whose shape nobody knows, the op that made it."""
    if tensor.shape or tensor.dtype:
        return shape_word(tensor.shape, tensor.dtype)
    return op_word(tensor.op)


def op_word(op: str) -> str:
    """``aten.mm.default`` -> ``mm``; the overload stays where it is not the default one.

    >>> op_word("aten.mm.default"), op_word("aten.add.Tensor"), op_word("mine.op")
    ('mm', 'add.Tensor', 'mine.op')
    """
    return op.removeprefix("aten.").removesuffix(".default")


def name_word(tensor: AliveTensor) -> str:
    """What a person would call a tensor: its label, else the module that made it, else the op."""
    return tensor.label or tensor.module or op_word(tensor.op)


def line_word(line: str) -> str:
    """``/a/long/way/model.py:31`` -> ``model.py:31``."""
    return os.path.basename(line)


def place(moment: Moment) -> str:
    """``backward of transformer.h.3.attn (modeling.py:231)``; what is not known is left out."""
    phase = f"{moment.phase} of " if moment.phase and (moment.module or moment.op) else moment.phase
    what = moment.module or op_word(moment.op)
    line = f" ({line_word(moment.line)})" if moment.line else ""
    return f"{phase}{what}{line}".strip() or "an unknown place"


def keep_end(text: str, width: int) -> str:
    """``text`` cut from the left to ``width`` characters: of a module path the end tells most.

    >>> keep_end("transformer.h.3.attn.c_proj", 12)
    '…attn.c_proj'
    """
    if len(text) <= width:
        return text
    return "…" + text[len(text) - width + 1 :] if width > 1 else text[:width]


def round_size(nbytes: int) -> str:
    """A size that a person chose: ``2 GiB`` rather than ``2.00 GiB``.

    >>> round_size(2 * 1024**3), round_size(1536)
    ('2 GiB', '1.50 KiB')
    """
    return re.sub(r"\.0+ ", " ", format_bytes(nbytes))


def signed(text: str, value: float) -> str:
    """``text`` of a difference, with its plus."""
    return f"+{text}" if value > 0 else text
