"""One walk through a Program at numbers for every input: what shape each value has there, loops and branches included.

Operations are added to a scratch graph, whose shape functions also follow small tensors (the target of a reshape). A tensor
list has no shape in TensorFlow: it is taken apart here into how many tensors it holds and how large each is, from whoever
tells (the tensor it was made of, what is put in, what is read out), joined over all names that are the same list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.client import pywrap_tf_session as c_api
from tensorflow.python.framework import tensor_util

from memfit.frameworks.tensorflow.capture import BRANCHES, LOOPS, Captured
from memfit.frameworks.tensorflow.graph_building import added
from memfit.frameworks.tensorflow.values import dtype_name
from memfit.ir.program import SEQUENCE, Operation, Program, Type

_SMALL = 4096
_FEW = 8
_TURNS = 64
_KEEPS_SCRATCH = ("FusedBatchNormV3", "_FusedBatchNormEx")
"""Operators with a result without a shape function: what their own backward kernel wants back; on a CPU one number."""


class UnsizedError(Exception):
    """An operator whose sizes nothing tells."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(operation.kind)
        self.operation = operation


class Lists:
    """What is known of tensor lists: names that are one list share a row (dtype, count, element shape)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._dtype: dict[str, str] = {}
        self._count: dict[str, int] = {}
        self._element: dict[str, tuple[int | None, ...]] = {}

    def find(self, name: str) -> str:
        """The list that a name is."""
        while self._parent.setdefault(name, name) != name:
            name = self._parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        """Two names are one list."""
        a, b = self.find(one), self.find(other)
        if a == b:
            return
        self._parent[b] = a
        if b in self._dtype:
            self._dtype.setdefault(a, self._dtype[b])
        self.tell(a, count=self._count.get(b), element=self._element.get(b))

    def tell(self, name: str, *, dtype: str = "", count: int | None = None, element: Any = None) -> None:
        """Something is known of a list."""
        at = self.find(name)
        if dtype:
            self._dtype[at] = dtype
        if count is not None and count >= 0:
            self._count[at] = max(count, self._count.get(at, 0))
        if element is not None:
            before = self._element.get(at, (None,) * len(element))
            if len(before) == len(element):
                self._element[at] = tuple(
                    b if a is None else a if b is None else max(a, b) for a, b in zip(element, before, strict=True)
                )

    def element(self, name: str) -> tuple[int | None, ...] | None:
        """The shape of one tensor of a list."""
        return self._element.get(self.find(name))

    def type_of(self, name: str, default: int) -> Type:
        """The list as a Type: how many, then the sizes of one."""
        at = self.find(name)
        element = tuple(1 if size is None else size for size in self._element.get(at, ()))
        return Type(self._dtype.get(at, "float32"), (self._count.get(at, default), *element), SEQUENCE)


class Walk:
    """See the module text. ``inputs``: numbers for each axis of each input."""

    def __init__(self, captured: Captured, inputs: Mapping[str, tuple[int, ...]]) -> None:
        self.captured, self.inputs = captured, inputs
        self.lists = Lists()
        self.lists_known: set[str] = set()
        self.types: dict[str, Type] = {}
        self.small: dict[str, Any] = {}  # values of whole numbers that follow from sizes alone
        self.handles: dict[str, Type] = {}  # a variable's handle -> what the variable holds

    def run(self) -> dict[str, Type]:
        """The type of every value, those of bodies too."""
        program = self.captured.program
        with tf.Graph().as_default():
            tensors = {
                name: tf.compat.v1.placeholder(_tf(program.types[name].dtype), self.inputs[name])
                for name in program.inputs
            }
            self._program(program, tensors)
            self.types.update((name, Type(program.types[name].dtype, self.inputs[name])) for name in program.inputs)
        for name in self.lists_known:
            self.types[name] = self.lists.type_of(name, _TURNS)
        return self.types

    def _program(self, program: Program, given: Mapping[str, Any]) -> list[Any]:
        known: dict[str, Any] = dict(given)
        for name, constant in program.constants.items():
            known[name] = self._constant(name, constant)
            self.types[name] = constant.type
        for operation in program.operations:
            made = self._operation(program, operation, [known[name] for name in operation.inputs])
            for name, tensor in zip(operation.outputs, made, strict=True):
                known[name] = tensor
                if name and name not in self.lists_known:
                    self._note(operation, name, tensor)
        return [known[name] for name in program.outputs]

    def _constant(self, name: str, constant: Any) -> Any:
        if constant.reference in self.captured.values.handles:
            self.handles[name] = constant.type
            return tf.compat.v1.placeholder(tf.resource, ())
        shape = constant.type.shape
        if int(np.prod(shape)) <= _SMALL or constant.type.dtype == "string":
            return tf.constant(self.captured.values.array(constant))
        return tf.compat.v1.placeholder(_tf(constant.type.dtype), shape)

    def _note(self, operation: Operation, name: str, tensor: Any) -> None:
        if not tensor.shape.is_fully_defined():
            raise UnsizedError(operation)
        shape = tuple(tensor.shape.as_list())
        if tensor.dtype in (tf.int32, tf.int64) and int(np.prod(shape)) <= _FEW:
            value = _value(tensor)
            if value is not None:
                self.small[name] = np.asarray(value, dtype=tensor.dtype.as_numpy_dtype)
        known = self.handles.get(name)
        if known is None:
            self.types[name] = Type(dtype_name(tensor.dtype), shape)
        else:  # a handle that was passed on: the variable's bytes are counted where it was captured
            self.types[name] = Type("string", ())

    def _operation(self, program: Program, operation: Operation, inputs: list[Any]) -> list[Any]:
        kind = operation.kind.partition(".")[2]
        if kind in LOOPS:
            return self._loop(operation, inputs)
        if kind in BRANCHES:
            return self._branch(operation, inputs)
        if kind == "ReadVariableOp":
            held = self.handles[operation.inputs[0]]
            return [tf.compat.v1.placeholder(_tf(held.dtype), held.shape)]
        if kind.startswith(("TensorList", "EmptyTensorList")):
            return self._list(kind, operation, inputs)
        if kind == "Identity" and inputs[0].dtype == tf.variant:
            self._same_list(operation.inputs[0], operation.outputs[0])
            return inputs
        if kind in ("Identity", "IdentityN") and any(t.dtype == tf.resource for t in inputs):
            for before, after in zip(operation.inputs, operation.outputs, strict=True):
                if before in self.handles:
                    self.handles[after] = self.handles[before]
            return inputs
        if any(name in self.handles for name in operation.inputs):
            return self._of_variable(operation, inputs)
        return [self._sized(operation, kind, t, inputs) for t in added(operation, inputs)]

    def _sized(self, operation: Operation, kind: str, tensor: Any, inputs: list[Any]) -> Any:
        """A tensor whose sizes that depend on data are their largest."""
        if tensor.shape.is_fully_defined() or tensor.dtype in (tf.variant, tf.resource):
            return tensor
        if tensor.shape.rank is None and kind in _KEEPS_SCRATCH:
            return tf.compat.v1.placeholder(tensor.dtype, ())
        if tensor.shape.rank is None:
            raise UnsizedError(operation)
        whole = inputs[0].shape.as_list() if kind in ("Slice", "StridedSlice") else []
        if len(whole) == tensor.shape.rank and None not in whole:  # a part of each axis is at most all of it
            sizes = [most if size is None else size for size, most in zip(tensor.shape.as_list(), whole, strict=True)]
            return tf.compat.v1.placeholder(tensor.dtype, sizes)
        largest = _largest(kind, operation, inputs)
        if largest is None:
            raise UnsizedError(operation)
        sizes = [largest if size is None else size for size in tensor.shape.as_list()]
        return tf.compat.v1.placeholder(tensor.dtype, sizes)

    def _of_variable(self, operation: Operation, inputs: list[Any]) -> list[Any]:
        """An operation on variables that are assigned: what it hands out has the sizes that it has on plain tensors."""
        kind = operation.kind.partition(".")[2]
        if not operation.outputs:
            return []
        held = self.handles.get(operation.inputs[0])
        if kind == "VariableShape" and held is not None:
            width = operation.attribute("out_type")
            return [tf.constant(held.shape, dtype=tf.as_dtype(width.value.type) if width is not None else tf.int32)]
        if kind == "ResourceGather" and held is not None:
            shape = (*inputs[1].shape.as_list(), *(held.shape or ())[1:])
            return [tf.compat.v1.placeholder(_tf(held.dtype), shape)]
        return [self._sized(operation, kind, t, inputs) for t in added(operation, inputs)]

    # Loops and branches

    def _loop(self, operation: Operation, inputs: list[Any]) -> list[Any]:
        bodies = dict(operation.bodies)
        for body in bodies.values():
            self._pass_on(operation.inputs, body.inputs)
        self._arguments(bodies["cond"], inputs)
        self._program(bodies["cond"], dict(zip(bodies["cond"].inputs, inputs, strict=True)))
        self._turns(operation, bodies["cond"], inputs)
        given = [t if t.dtype in (tf.variant, tf.resource) else _hidden(t, t.shape) for t in inputs]
        self._arguments(bodies["body"], given)
        made = self._program(bodies["body"], dict(zip(bodies["body"].inputs, given, strict=True)))
        self._pass_on(operation.inputs, operation.outputs)
        self._pass_on(operation.inputs, bodies["body"].outputs)
        results = []
        for before, after in zip(inputs, made, strict=True):
            shape = [max(a or 0, b or 0) for a, b in zip(before.shape.as_list(), after.shape.as_list(), strict=True)] if (
                before.shape.rank is not None and before.shape.rank == after.shape.rank
            ) else after.shape  # fmt: skip
            results.append(before if before.dtype in (tf.variant, tf.resource) else _hidden(before, shape))
        return results

    def _turns(self, operation: Operation, cond: Program, inputs: list[Any]) -> None:
        """How often a loop runs, where its condition compares a counter with what does not change: for lists that grow."""
        self.turns = _TURNS
        limits = []
        for op in cond.operations:
            if op.kind in ("tf.Less", "tf.LessEqual") and op.inputs[1] in cond.inputs:
                value = _value(inputs[cond.inputs.index(op.inputs[1])])
                if value is not None and np.ndim(value) == 0 and 0 <= int(value) < 2**31 - 1:
                    limits.append(int(value))
            elif op.kind in ("tf.Less", "tf.LessEqual") and op.inputs[1] in cond.constants:
                limits.append(int(self.captured.values.array(cond.constants[op.inputs[1]])))
        if limits:
            self.turns = min(limits)

    def _branch(self, operation: Operation, inputs: list[Any]) -> list[Any]:
        results: list[list[Any]] = []
        for _, body in operation.bodies:
            self._pass_on(operation.inputs[1:], body.inputs)
            given = inputs[1:]
            self._arguments(body, given)
            results.append(self._program(body, dict(zip(body.inputs, given, strict=True))))
            self._pass_on(body.outputs, operation.outputs)
        made = []
        for tensors in zip(*results, strict=True):
            shapes = [t.shape.as_list() for t in tensors if t.shape.rank is not None]
            same = shapes and all(len(s) == len(shapes[0]) for s in shapes)
            shape = [max(s) for s in zip(*shapes, strict=True)] if same else tensors[0].shape
            made.append(tensors[0] if tensors[0].dtype in (tf.variant, tf.resource) else _hidden(tensors[0], shape))
        return made

    def _arguments(self, body: Program, inputs: list[Any]) -> None:
        for name, tensor in zip(body.inputs, inputs, strict=True):
            if name in self.handles or tensor.dtype == tf.resource:
                self.types[name] = Type("string", ())
            elif name not in self.lists_known:
                self.types[name] = Type(dtype_name(tensor.dtype), tuple(tensor.shape.as_list()))

    def _pass_on(self, before: Any, after: Any) -> None:
        """Names that are the same list, or the handle of the same variable."""
        for one, other in zip(before, after, strict=True):
            if one in self.handles:
                self.handles[other] = self.handles[one]
            if one in self.lists_known or other in self.lists_known:
                self._same_list(one, other)

    # Tensor lists

    def _same_list(self, one: str, other: str) -> None:
        self.lists.join(one, other)
        self.lists_known.update((one, other))

    def _list(self, kind: str, operation: Operation, inputs: list[Any]) -> list[Any]:
        handle = tf.compat.v1.placeholder(tf.variant, ())
        first, out = operation.inputs[0], operation.outputs[0]
        dtype = operation.attribute("element_dtype")
        element_dtype = dtype_name(tf.as_dtype(dtype.value.type)) if dtype is not None else ""
        if kind in ("TensorListReserve", "EmptyTensorList", "TensorListFromTensor"):
            self.lists_known.add(out)
            self.lists.tell(out, dtype=element_dtype)
            if kind == "TensorListFromTensor":
                sizes = inputs[0].shape.as_list()
                self.lists.tell(out, count=sizes[0], element=sizes[1:])
                return [handle]
            shape = _value(inputs[0])
            if shape is not None and np.ndim(shape) == 1:
                self.lists.tell(out, element=[None if size < 0 else int(size) for size in shape])
            count = _value(inputs[1])
            if count is not None and kind == "TensorListReserve":
                self.lists.tell(out, count=int(count))
            return [handle]
        if kind in ("TensorListSetItem", "TensorListPushBack", "TensorListResize"):
            self._same_list(first, out)
            if kind == "TensorListSetItem":
                self.lists.tell(out, element=inputs[2].shape.as_list())
            elif kind == "TensorListPushBack":
                self.lists.tell(out, element=inputs[1].shape.as_list(), count=getattr(self, "turns", _TURNS))
            return [handle]
        if kind == "TensorListLength":
            return [tf.compat.v1.placeholder(tf.int32, ())]
        return self._read_list(kind, operation, inputs, handle, element_dtype)

    def _read_list(
        self, kind: str, operation: Operation, inputs: list[Any], handle: Any, dtype: str
    ) -> list[Any]:  # fmt: skip
        first = operation.inputs[0]
        self.lists_known.add(first)
        known = list(self.lists.element(first) or ())
        shape_at = {"TensorListGetItem": 2, "TensorListPopBack": 1, "TensorListStack": 1, "TensorListGather": 2}.get(
            kind
        )
        told = _value(inputs[shape_at]) if shape_at is not None else None
        if told is not None and np.ndim(told) == 1:
            given = [None if size < 0 else int(size) for size in told]
            self.lists.tell(first, element=given)
            known = list(self.lists.element(first) or ())
        if any(size is None for size in known):
            raise UnsizedError(operation)
        made = _tf(dtype)
        if kind == "TensorListGetItem":
            return [tf.compat.v1.placeholder(made, known)]
        if kind == "TensorListPopBack":
            self._same_list(first, operation.outputs[0])
            return [handle, tf.compat.v1.placeholder(made, known)]
        if kind == "TensorListStack":
            count = (self.lists.type_of(first, _TURNS).shape or (_TURNS,))[0]
            return [tf.compat.v1.placeholder(made, [count, *known])]
        if kind == "TensorListGather":
            return [tf.compat.v1.placeholder(made, [*inputs[1].shape.as_list(), *known])]
        raise UnsizedError(operation)


def _hidden(tensor: Any, shape: Any) -> Any:
    """A tensor of the same kind whose value nothing may look at."""
    return tf.compat.v1.placeholder(tensor.dtype, shape)


def _value(tensor: Any) -> Any:
    """The value of a small tensor that follows from constants and sizes, None where it does not."""
    found = tensor_util.constant_value(tensor)
    if found is None and tensor.op.type not in ("Placeholder", "ReadVariableOp"):
        found = c_api.TF_TryEvaluateConstant_wrapper(tensor.graph._c_graph, tensor._as_tf_output())
    return found


def _largest(kind: str, operation: Operation, inputs: list[Any]) -> int | None:
    """The largest size that an axis that depends on data can have."""
    if kind in ("Where", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2", "BooleanMask", "ListDiff",
                "DynamicPartition"):  # fmt: skip
        return int(inputs[0].shape.num_elements() or 0)
    if kind.startswith("NonMaxSuppression"):
        value = _value(inputs[2])
        return int(value) if value is not None else inputs[0].shape.as_list()[0]
    if kind in ("Range", "StridedSlice", "Slice", "Fill", "Tile", "BroadcastTo", "Reshape", "Pad", "PadV2", "TopKV2"):
        return None
    return None


def _tf(dtype: str) -> Any:
    return tf.as_dtype(dtype)
