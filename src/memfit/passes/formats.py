"""The formats a weight can be stored in: their names, and the bytes that each takes, exactly.

    keep            as it is
    int8            8 bits, scale and zero point per 128 columns    1.02 bytes a value
    int6            6 bits, per 64                                  0.80
    int4            4 bits, per 32                                  0.59
    int4-g128       4 bits, per 128                                 0.52
    int3            3 bits, per 32                                  0.47
    int2            2 bits, per 32                                  0.34
    int4-torch      4 bits, per 32, torch's own layout and product  0.63, bfloat16 models only
    2:4             2 of 4 values kept, with 2-bit positions        (item size / 2 + 1/8)
    csr             values kept, each with a 32-bit column          smaller than dense above 50 % zeros (float32)
    bitmap          values kept, and one bit for every value        smaller above 3 % zeros (float32)

``int`` formats pack rows to multiples of 8 and columns to multiples of 32; the others take what is written here.
``library_bytes`` is the same for formats of other libraries; those that store every value in a whole byte whatever the
bits are called are in ``NOT_PACKED``.
"""

from __future__ import annotations

from dataclasses import dataclass

from memfit.passes.quantize import packed_bytes

_CSR_WORKSPACE = 14_400  # of the library's sparse product, measured; the same at every shape


@dataclass(frozen=True, slots=True)
class Format:
    """One way to store a weight. ``kind``: keep, int, torch, 2:4, csr or bitmap; ``bits`` and ``group`` of int."""

    name: str
    kind: str
    bits: int = 0
    group: int = 0

    def stored_bytes(self, rows: int, columns: int, itemsize: int, kept: int | None = None) -> int:
        """Projected bytes of a weight. ``itemsize`` of its values; ``kept``: values that are not zero (csr, bitmap)."""
        if self.kind == "int":
            return packed_bytes(rows, columns, self.bits, self.group)
        if self.kind == "keep":
            return rows * columns * itemsize
        if self.kind == "torch":
            return rows * columns // 2 + rows * (columns // self.group) * 4
        if self.kind == "2:4":
            quads = rows * -(-columns // 4)
            return quads * 2 * itemsize + -(-quads // 2)
        assert kept is not None
        if self.kind == "csr":
            return kept * (itemsize + 4) + 4 * (rows + 1)
        return kept * itemsize + -(-rows * columns // 8) + 4 * (rows + 1)

    def transient_bytes(self, rows: int, columns: int, tokens: int, itemsize: int) -> int:
        """Projected bytes that one product needs beside its input and output.

        int: the rounded activations, and float32 copies of input and output where the model has another dtype. 2:4 and
        bitmap: the dense weight, made on use. csr: input and output transposed. torch: none.
        """
        if self.kind == "int":
            copies = 0 if itemsize == 4 else 4 * tokens * (rows + columns)
            return -(-columns // 32) * tokens * 40 + copies
        if self.kind == "csr":
            return 4 * tokens * (rows + columns) + _CSR_WORKSPACE
        return 0 if self.kind in ("keep", "torch") else rows * columns * itemsize


FORMATS = {
    made.name: made
    for made in (
        Format("keep", "keep"),
        Format("int8", "int", 8, 128),
        Format("int6", "int", 6, 64),
        Format("int4", "int", 4, 32),
        Format("int4-g128", "int", 4, 128),
        Format("int3", "int", 3, 32),
        Format("int2", "int", 2, 32),
        Format("int4-torch", "torch", 4, 32),
        Format("2:4", "2:4"),
        Format("csr", "csr"),
        Format("bitmap", "bitmap"),
    )
}

BUDGET_FORMATS = ("keep", "int8", "int6", "int4", "int4-g128", "int3", "int2")
"""What a budget chooses from unless told otherwise."""

NOT_PACKED = {
    "torchao-intx4": "torchao IntxWeightOnlyConfig stores every value in a whole byte: 4 bits save nothing below int8",
    "torchao-intx2": "torchao IntxWeightOnlyConfig stores every value in a whole byte: 2 bits save nothing below int8",
}


def library_bytes(name: str, rows: int, columns: int) -> int:
    """Projected bytes of a float32 weight [rows, columns] in another library's format, scales and zero points included.

    Raises:
        KeyError: unknown format.
    """
    values = rows * columns
    blocks32, blocks64, blocks128 = (rows * -(-columns // size) for size in (32, 64, 128))
    flat64 = -(-values // 64)
    table = {
        "torch-int4pack-g32": values // 2 + blocks32 * 4,
        "torch-int4pack-g128": values // 2 + blocks128 * 4,
        "torchao-int8": values + 4 * rows,
        "torchao-intx4": values + blocks32 * (4 + 1),
        "torchao-intx2": values + blocks32 * (4 + 1),
        "bnb-nf4": -(-values // 2) + flat64 + 4 * -(-flat64 // 256) + 4 * (256 + 16 + 1),
        "bnb-int8": values + 4 * rows,
        "hqq-4bit-g64": values // 2 + blocks64 * 8,
        "quanto-int8": values + 4 * rows,
        "quanto-int4": values // 2 + blocks128 * 8,
        "gguf-q8_0": blocks32 * 34,
        "gguf-q4_0": blocks32 * 18,
        "gguf-mxfp4": blocks32 * 17,
        "ort-int4-g32": blocks32 * 16 + blocks32 * 4 + rows * -(-blocks32 // rows // 2),
        "ort-int8-dynamic": values + 4 + 1,
    }
    return table[name]
