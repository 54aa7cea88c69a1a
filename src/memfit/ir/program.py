"""Program: what a front end captured, as operations over named values; what passes rewrite and planners are lowered from.

    input    x: float32[batch, 768]
    constant w: float32[768, 3072] = "mlp.weight"        by reference: a Program holds no weights
    y: float32[batch, 3072] = onnx.MatMul(x, w)
    output   y

Each name is given a value once. An operation's ``kind`` is ``framework.Operator`` (``onnx.MatMul``, ``jax.dot_general``,
``tf.Conv2D``, ``aten.mm``); what it does to memory stands in ``ir.ops`` alone. Loops and branches hold ``bodies``: programs
that may read names of the program around them (``captured``). Programs are not changed: a pass returns the same object
where nothing changed, and a copy is cheap, since constants are references that the front end resolves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from memfit.ir.dimension import Shape, Size, product, symbols

BITS = {
    "bool": 8, "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int8": 8, "uint8": 8, "float8_e4m3fn": 8,
    "float8_e4m3fnuz": 8, "float8_e5m2": 8, "float8_e5m2fnuz": 8, "float8_e8m0fnu": 8, "int16": 16, "uint16": 16,
    "float16": 16, "bfloat16": 16, "int32": 32, "uint32": 32, "float32": 32, "int64": 64, "uint64": 64, "float64": 64,
    "complex64": 64, "complex128": 128, "string": 256,
}  # fmt: skip
"""Bits of one element; a string counts as the 32 bytes of its handle."""

SEQUENCE = "sequence"
OPTIONAL = "optional"


@dataclass(frozen=True, slots=True)
class Type:
    """What a value is: ``dtype`` (a key of BITS) and ``shape``, None where even the rank is unknown.

    ``form``: "" for a tensor, "sequence" for a list of tensors (its length is the first size), "optional".
    """

    dtype: str
    shape: Shape | None
    form: str = ""

    def __str__(self) -> str:
        shape = "[?]" if self.shape is None else f"[{', '.join(map(str, self.shape))}]"
        return (self.form + " " if self.form else "") + self.dtype + shape

    @property
    def known(self) -> bool:
        """Whether every size is a number or an expression of named dimensions."""
        return self.shape is not None and self.dtype in BITS

    @property
    def nbytes(self) -> Size:
        """Bytes, symbolic where a dimension is; packed elements are rounded up to whole bytes. 0 where unknown."""
        if self.shape is None:
            return 0
        bits = product(self.shape) * BITS.get(self.dtype, 32)
        return (
            -(-bits // 8) if isinstance(bits, int) else (bits + 7) // 8 if BITS.get(self.dtype, 32) < 8 else bits // 8
        )


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that exists before the run. ``reference``: what the front end finds its bytes by, one for each content."""

    type: Type
    reference: str

    @property
    def nbytes(self) -> int:
        """Bytes."""
        size = self.type.nbytes
        assert isinstance(size, int)
        return size


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation. ``inputs``: names, '' where an optional one is left out; ``attributes``: sorted pairs, hashable.

    ``bodies``: (attribute name, Program). ``label``: what the model's author called it, for reports.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Any], ...] = ()
    bodies: tuple[tuple[str, Program], ...] = ()
    label: str = ""

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value, or ``default``."""
        for key, value in self.attributes:
            if key == name:
                return value
        return default

    @property
    def reads(self) -> tuple[str, ...]:
        """Names read: inputs, and what bodies capture."""
        given = tuple(name for name in self.inputs if name)
        return given + tuple(name for _, body in self.bodies for name in body.captured) if self.bodies else given


@dataclass(frozen=True)
class Program:
    """See the module text. ``types`` names every value, constants and inputs too. ``meta``: for the front end alone."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    types: Mapping[str, Type]
    constants: Mapping[str, Constant] = field(default_factory=dict)
    name: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def captured(self) -> tuple[str, ...]:
        """Names that are read here and made in a program around this one, in the order of their first use."""
        made = {*self.inputs, *self.constants}
        free: dict[str, None] = {}
        for operation in self.operations:
            free.update(dict.fromkeys(name for name in operation.reads if name not in made))
            made.update(operation.outputs)
        free.update(dict.fromkeys(name for name in self.outputs if name and name not in made))
        return tuple(free)

    @cached_property
    def producer(self) -> Mapping[str, int]:
        """Name -> index of the operation that makes it."""
        return {name: index for index, op in enumerate(self.operations) for name in op.outputs if name}

    @cached_property
    def readers(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> indices of the operations that read it, bodies included; an index comes once for each use."""
        found: dict[str, list[int]] = {}
        for index, operation in enumerate(self.operations):
            for name in operation.reads:
                found.setdefault(name, []).append(index)
        return {name: tuple(indices) for name, indices in found.items()}

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the dimensions that the inputs leave open: what a user binds."""
        sizes = [size for name in self.inputs for size in self.types[name].shape or ()]
        return tuple(sorted(symbols(sizes)))

    @cached_property
    def constant_bytes(self) -> int:
        """Bytes of all constants, each content once, bodies included."""
        return sum({c.reference: c.nbytes for p in programs(self) for c in p.constants.values()}.values())

    @cached_property
    def node_count(self) -> int:
        """Operations, those of bodies included."""
        return sum(len(program.operations) for program in programs(self))


def programs(program: Program) -> Iterator[Program]:
    """``program`` and every body inside it."""
    yield program
    for operation in program.operations:
        for _, body in operation.bodies:
            yield from programs(body)


def text_of(program: Program, indent: str = "") -> str:
    """The program as text, one operation a line; the same program gives the same text. For people and golden tests."""
    lines = [f"input {name}: {program.types[name]}" for name in program.inputs]
    lines += [f"constant {name}: {c.type} = {c.reference!r}" for name, c in program.constants.items()]
    for op in program.operations:
        made = ", ".join(f"{name}: {program.types.get(name, '?')}" if name else "_" for name in op.outputs)
        attributes = ", ".join(f"{name}={value!r}" for name, value in op.attributes)
        reads = ", ".join(name or "_" for name in op.inputs)
        lines.append(f"{made} = {op.kind}({reads})" + (f" {{{attributes}}}" if attributes else ""))
        for name, body in op.bodies:
            lines.append(f"  {name}:\n" + text_of(body, indent + "    ").rstrip("\n"))
    lines.append("output " + ", ".join(program.outputs))
    return "".join((line if line.startswith("  ") else indent + line) + "\n" for line in lines)
