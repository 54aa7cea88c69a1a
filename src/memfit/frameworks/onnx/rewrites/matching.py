"""Looking at a Program as patterns do: who makes a value, who alone reads it, what a small constant holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memfit.ir.dimension import Shape
from memfit.ir.program import Operation, Program, Type
from memfit.passes.workbench import Rewriting, Workbench


class Sight(Rewriting):
    """A Rewriting with eyes. An operation that this sweep already touched is not matched again; the next round does."""

    def __init__(self, program: Program, bench: Workbench) -> None:
        super().__init__(program)
        self.bench = bench
        self.touched: set[int] = set()
        self.opset: int = program.meta.get("opsets", {}).get("", 0)
        self.values: dict[str, Any] = program.meta.get("values", {})
        self.replaceable = program.meta.get("inputs", {})

    def index(self, name: str) -> int:
        """Index of the untouched operation that makes ``name``, -1 where there is none."""
        at = self.program.producer.get(name, -1)
        return -1 if at in self.touched else at

    def maker(self, name: str, *operators: str) -> Operation | None:
        """The operation that makes ``name``, where it is one of ``operators``."""
        at = self.index(name)
        if at < 0:
            return None
        operation = self.program.operations[at]
        return operation if operation.kind.removeprefix("onnx.") in operators else None

    def alone(self, name: str) -> bool:
        """Whether exactly one operation reads ``name``, once, and it is no output."""
        return len(self.program.readers.get(name, ())) == 1 and name not in self.outputs

    def reader(self, name: str) -> int:
        """The one untouched reader of ``name``, -1 where there is none or several."""
        readers = self.program.readers.get(name, ())
        return readers[0] if self.alone(name) and readers[0] not in self.touched else -1

    def array(self, name: str) -> Any:
        """The content of a constant, None for anything else."""
        constant = self.program.constants.get(name)
        if constant is None or name in self.replaceable or name not in self.constants:
            return None
        return self.bench.array(constant)

    def scalar(self, name: str) -> float | None:
        """The number in a constant of one element, else None."""
        constant = self.program.constants.get(name)
        if constant is None or name in self.replaceable or constant.nbytes > 16 or constant.type.dtype == "string":
            return None
        array = self.bench.array(constant)
        return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiub" else None

    def shape(self, name: str) -> Shape | None:
        """The shape of a value, None where unknown or where it is no tensor."""
        given = self.types.get(name)
        return None if given is None or given.form else given.shape

    def dtype(self, name: str) -> str:
        """The element type of a value."""
        return self.types[name].dtype

    def numbers(self, array: Any, like: str) -> str:
        """The name of a constant holding ``array``."""
        return self.constant(self.bench.keep(array), like)

    def put(self, index: int, *operations: Operation, over: tuple[int, ...] = ()) -> None:
        """Replace operation ``index`` and remember it, and ``over``, as touched."""
        self.replace(index, *operations)
        self.touched.update((index, *over))

    def made(self, like: str, given: Type) -> str:
        """A new value of a type."""
        name = self.name(like)
        self.types[name] = given
        return name


def operation(kind: str, inputs: tuple[str, ...], output: str, label: str = "", **attributes: Any) -> Operation:
    """An ONNX operation of one output."""
    return Operation(f"onnx.{kind}", inputs, (output,), tuple(sorted(attributes.items())), (), label)


def with_inputs(given: Operation, *inputs: str) -> Operation:
    """The operation reading other values."""
    return replace(given, inputs=inputs)


def target_of(given: Shape, wanted: Shape) -> tuple[int, ...] | None:
    """Numbers that make a Reshape turn ``given`` into ``wanted`` whatever the dimensions are; None where none do.

    0 copies the size at the same place, one -1 is worked out from the rest; every other size must be a number above 0.
    """
    numbers: list[int] = []
    open_at = -1
    for axis, size in enumerate(wanted):
        if isinstance(size, int):
            if size == 0:
                return None
            numbers.append(size)
        elif axis < len(given) and given[axis] == size:
            numbers.append(0)
        elif open_at < 0:
            open_at = axis
            numbers.append(-1)
        else:
            return None
    return tuple(numbers)


def all_numbers(shape: Shape | None) -> tuple[int, ...] | None:
    """The shape as numbers, None where a size is open."""
    if shape is None or any(not isinstance(size, int) for size in shape):
        return None
    return tuple(int(size) for size in shape if isinstance(size, int))
