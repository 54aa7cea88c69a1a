"""What only TensorFlow's operators need of the exact passes.

shapes    whole numbers that follow from sizes alone become constants; the target of a reshape too, one size left open
affine    a convolution or product by constant weights takes over the scaling and the bias behind it, as a batch
          normalisation at inference is written: w*s and b*s + t are computed once (equal up to rounding)
turned    a product reads matrices as they lie instead of turned ones (equal up to rounding)
pads      zeros put around images are the convolution's own padding: no larger image is made (the same bits)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tensorflow.core.framework.attr_value_pb2 import AttrValue

from memfit.frameworks.tensorflow.capture import Message
from memfit.ir.program import Operation, Program
from memfit.passes.fold import SMALL
from memfit.passes.workbench import Pass, Rewriting, Workbench

_WEIGHTED = ("Conv2D", "Conv3D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2")
_ADDS = ("AddV2", "Add", "BiasAdd")


def shapes(program: Program, bench: Workbench) -> Program:
    """``program`` with its shape arithmetic done, where sizes are numbers."""
    known = program.meta.get("known", {})
    work = Rewriting(program)
    for index, operation in enumerate(program.operations):
        kind = operation.kind.partition(".")[2]
        if len(operation.outputs) == 1 and operation.outputs[0] in known and operation.outputs[0] not in work.outputs:
            constant = bench.keep(known[operation.outputs[0]])
            work.rename(operation.outputs[0], work.constant(constant, operation.outputs[0]))
            work.replace(index)
        elif kind == "Reshape" and operation.inputs[1] not in program.constants:
            sizes = program.types[operation.outputs[0]].shape or ()
            if sum(not isinstance(size, int) for size in sizes) <= 1:
                dtype = program.types[operation.inputs[1]].dtype
                target = np.array([size if isinstance(size, int) else -1 for size in sizes], dtype=dtype)
                name = work.constant(bench.keep(target), f"{operation.outputs[0]}/target")
                work.replace(index, replace(operation, inputs=(operation.inputs[0], name)))
    return work.done()


def affine(program: Program, bench: Workbench) -> Program:
    """``program`` with scalings and biases taken into the constants before them."""
    return _Affine(program, bench).done()


class _Affine:
    """One sweep; an operation is part of at most one rewriting in it."""

    def __init__(self, program: Program, bench: Workbench) -> None:
        self.program, self.bench, self.work = program, bench, Rewriting(program)
        self.touched: set[int] = set()

    def done(self) -> Program:
        """The Program after the sweep."""
        for index, operation in enumerate(self.program.operations):
            kind = operation.kind.partition(".")[2]
            if kind == "Mul":
                self._scaling(index, operation)
            elif kind in _ADDS:
                self._adding(index, operation)
            elif kind == "FusedBatchNormV3":
                self._normalising(index, operation)
        return self.work.done()

    def _source(self, index: int, name: str) -> int | None:
        """The operation that makes ``name`` for operation ``index`` alone."""
        at = self.program.producer.get(name)
        alone = self.program.readers.get(name) == (index,) and name not in self.work.outputs
        return at if at is not None and alone and at not in self.touched and index not in self.touched else None

    def _split(self, operation: Operation) -> tuple[str, Any] | None:
        """(the value, the constant vector over its last axis) of an operation of both."""
        names = operation.inputs[:2]
        shape = self.program.types[operation.outputs[0]].shape
        for value, other in (names, names[::-1]):
            constant = self.program.constants.get(other)
            if constant is None or constant.type.dtype not in ("float32", "float64") or not shape:
                continue
            if operation.kind.endswith("BiasAdd") and other != operation.inputs[1]:
                continue
            vector = self._vector(constant, shape)
            if vector is not None and self.program.types[value] == self.program.types[operation.outputs[0]]:
                return value, vector
        return None

    def _vector(self, constant: Any, shape: Any) -> Any:
        sizes, channels = constant.type.shape or (), shape[-1]
        if not isinstance(channels, int) or len(sizes) > len(shape) or any(size != 1 for size in sizes[:-1]):
            return None
        if sizes and sizes[-1] not in (1, channels):
            return None
        return np.broadcast_to(np.asarray(self.bench.array(constant), np.float64).reshape(-1), (channels,))

    def _weights(self, operation: Operation) -> Any:
        """The constant weights, read by nothing else, of a convolution or product whose last output axis is theirs."""
        kind = operation.kind.partition(".")[2]
        constant = self.program.constants.get(operation.inputs[1]) if len(operation.inputs) > 1 else None
        if kind not in _WEIGHTED or constant is None or constant.type.dtype not in ("float32", "float64"):
            return None
        if constant.nbytes > SMALL and len(self.program.readers[operation.inputs[1]]) > 1:
            return None  # changed for one reader it would be held twice
        layout = operation.attribute("data_format")
        return None if layout is not None and not layout.value.s.endswith(b"C") else self.bench.array(constant)

    def _scaled(self, operation: Operation, weights: Any, vector: Any) -> Operation:
        """The operation with its weights times a vector over the last output axis."""
        kind = operation.kind.partition(".")[2]
        wide = np.asarray(weights, np.float64)
        if kind == "DepthwiseConv2dNative":
            wide = wide * vector.reshape(wide.shape[2:])
        elif self._transposed(operation):
            wide = wide * vector[:, None]
        else:
            wide = wide * vector
        name = self.work.constant(self.bench.keep(wide.astype(weights.dtype)), operation.inputs[1])
        return replace(operation, inputs=(operation.inputs[0], name, *operation.inputs[2:]))

    @staticmethod
    def _transposed(operation: Operation) -> bool:
        flag = operation.attribute("transpose_b") or operation.attribute("adj_y")
        return flag is not None and bool(flag.value.b)

    def _constant(self, vector: Any, dtype: str, like: str) -> str:
        return self.work.constant(self.bench.keep(np.ascontiguousarray(vector).astype(dtype)), like)

    def _scaling(self, index: int, operation: Operation) -> None:
        split = self._split(operation)
        at = self._source(index, split[0]) if split else None
        if split is None or at is None or operation.outputs[0] in self.work.outputs:
            return
        self._scale(index, operation, at, split[1], None)

    def _normalising(self, index: int, operation: Operation) -> None:
        training, layout = operation.attribute("is_training"), operation.attribute("data_format")
        constants = [self.program.constants.get(name) for name in operation.inputs[1:5]]
        read = any(
            name and (self.program.readers.get(name) or name in self.work.outputs) for name in operation.outputs[1:]
        )
        plain = training is not None and not training.value.b and layout is not None and layout.value.s == b"NHWC"
        at = self._source(index, operation.inputs[0])
        if (
            not plain
            or read
            or at is None
            or any(c is None for c in constants)
            or operation.outputs[0] in self.work.outputs
        ):
            return
        scale, offset, mean, variance = (
            np.asarray(self.bench.array(c), np.float64) for c in constants if c is not None
        )
        vector = scale / np.sqrt(variance + operation.attribute("epsilon").value.f)
        self._scale(index, operation, at, vector, offset - mean * vector)

    def _scale(self, index: int, operation: Operation, at: int, vector: Any, shift: Any) -> None:
        """Operation ``index`` is its input, made by ``at``, times ``vector`` plus ``shift``."""
        before = self.program.operations[at]
        dtype = self.program.types[operation.outputs[0]].dtype
        bias, source = None, at
        if before.kind.partition(".")[2] in _ADDS:
            split = self._split(before)
            inner = self._source(at, split[0]) if split else None
            if split is None or inner is None:
                return
            bias, source = split[1], inner
        producer = self.program.operations[source]
        weights = self._weights(producer)
        if weights is None:
            return
        total = (0 if bias is None else bias * vector) + (0 if shift is None else shift)
        self.work.replace(source, self._scaled(producer, weights, vector))
        self.touched.update((index, at, source))
        if bias is None and shift is None:
            self.work.rename(operation.outputs[0], producer.outputs[0])
            self.work.replace(index)
            return
        name = self._constant(total, dtype, f"{operation.outputs[0]}/bias")
        if bias is not None:
            added = replace(before, inputs=(producer.outputs[0], name), outputs=operation.outputs[:1])
            self.work.replace(at)
            self.work.replace(index, added)
        else:
            attributes = tuple((key, value) for key, value in operation.attributes if key in ("T", "data_format"))
            self.work.replace(index, Operation("tf.BiasAdd", (producer.outputs[0], name), operation.outputs[:1], attributes, (),
                                               operation.label))  # fmt: skip

    def _adding(self, index: int, operation: Operation) -> None:
        """Two additions of constants are one."""
        split = self._split(operation)
        at = self._source(index, split[0]) if split else None
        if split is None or at is None:
            return
        before = self.program.operations[at]
        inner = self._split(before) if before.kind.partition(".")[2] in _ADDS else None
        if inner is None:
            return
        dtype = self.program.types[operation.outputs[0]].dtype
        name = self._constant(split[1] + inner[1], dtype, f"{operation.outputs[0]}/bias")
        self.work.replace(at)
        self.work.replace(index, replace(operation, inputs=(inner[0], name)))
        self.touched.update((index, at))


_FLAGS = {
    "MatMul": ("transpose_a", "transpose_b"),
    "BatchMatMul": ("adj_x", "adj_y"),
    "BatchMatMulV2": ("adj_x", "adj_y"),
}


def turned(program: Program, bench: Workbench) -> Program:
    """``program`` with transposes of the last two axes, where a product alone reads them, done by the product."""
    work = Rewriting(program)
    for index, operation in enumerate(program.operations):
        flags = _FLAGS.get(operation.kind.partition(".")[2], ())
        for place, flag in enumerate(flags):
            name = operation.inputs[place]
            at = program.producer.get(name)
            alone = name not in work.outputs and set(program.readers.get(name, ())) == {index}
            if at is None or not alone or not _turns(program, program.operations[at], bench):
                continue
            inputs = list(operation.inputs)
            inputs[place] = program.operations[at].inputs[0]
            given = operation.attribute(flag)
            value = AttrValue(b=not (given is not None and given.value.b))
            attributes = dict(operation.attributes) | {flag: Message(value.SerializeToString(deterministic=True))}
            operation = replace(operation, inputs=tuple(inputs), attributes=tuple(sorted(attributes.items())))
            work.replace(index, operation)
    return work.done()


def _turns(program: Program, operation: Operation, bench: Workbench) -> bool:
    """Whether an operation changes the last two axes of real numbers with each other and nothing else."""
    order = program.constants.get(operation.inputs[1]) if operation.kind == "tf.Transpose" else None
    if order is None or program.types[operation.inputs[0]].dtype.startswith("complex"):
        return False
    axes = np.asarray(bench.array(order)).reshape(-1).tolist()
    count = len(axes)
    return count >= 2 and axes == [*range(count - 2), count - 1, count - 2]


_PADDED = ("Conv2D", "DepthwiseConv2dNative")


def pads(program: Program, bench: Workbench) -> Program:
    """``program`` with zeros around images put by the convolutions that alone read them."""
    work = Rewriting(program)
    for index, operation in enumerate(program.operations):
        source = operation.inputs[0] if operation.inputs else ""
        at = program.producer.get(source)
        if operation.kind.partition(".")[2] not in _PADDED or at is None or program.readers[source] != (index,):
            continue
        wanted = None if source in work.outputs else _explicit(operation, program.operations[at], program, bench)
        if wanted is None:
            continue
        explicit = AttrValue(list=AttrValue.ListValue(i=wanted))
        attributes = dict(operation.attributes) | {
            "padding": Message(AttrValue(s=b"EXPLICIT").SerializeToString(deterministic=True)),
            "explicit_paddings": Message(explicit.SerializeToString(deterministic=True)),
        }
        inputs = (program.operations[at].inputs[0], *operation.inputs[1:])
        work.replace(at)
        work.replace(index, replace(operation, inputs=inputs, attributes=tuple(sorted(attributes.items()))))
    return work.done()


def _explicit(convolution: Operation, before: Operation, program: Program, bench: Workbench) -> list[int] | None:
    """What ``explicit_paddings`` is where the convolution also does the Pad ``before`` it; None where it cannot."""
    kind = before.kind.partition(".")[2]
    layout, own = convolution.attribute("data_format"), convolution.attribute("padding")
    if kind not in ("Pad", "PadV2") or layout is None or layout.value.s != b"NHWC" or own.value.s != b"VALID":
        return None
    constants = [program.constants.get(name) for name in before.inputs[1:]]
    if any(constant is None for constant in constants):
        return None
    rows, *filled = (np.asarray(bench.array(constant)) for constant in constants if constant is not None)
    if rows.shape != (4, 2) or (rows < 0).any() or rows[[0, 3]].any() or any((value != 0).any() for value in filled):
        return None
    return [int(number) for number in rows.reshape(-1)]


REWRITES: tuple[tuple[str, Pass], ...] = (("shapes", shapes), ("affine", affine), ("pads", pads), ("turned", turned))
