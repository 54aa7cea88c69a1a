"""Our shape rules: the operators whose sizes are expressions, where onnx's own inference leaves holes.

A rule returns the types of the outputs, or None (or raises) where it cannot say; onnx's inference of that node then
answers. Sizes that depend on data get an upper bound.
"""

from __future__ import annotations

from typing import Any

from memfit.frameworks.onnx.element_types import dtype_name
from memfit.frameworks.onnx.shape_rules_data import DATA_RULES
from memfit.frameworks.onnx.shape_rules_windows import WINDOW_RULES
from memfit.frameworks.onnx.shapes import Node, Rule, numeric
from memfit.ir.dimension import Expression, Shape, Size, ceil_divide, divide, largest, product, smallest
from memfit.ir.program import Type


def broadcast(*shapes: Shape) -> Shape:
    """The shape that the given ones spread to; two different symbols become the larger of them."""
    rank = max(len(shape) for shape in shapes)
    result: list[Size] = []
    for axis in range(-rank, 0):
        sizes = [shape[axis] for shape in shapes if -axis <= len(shape)]
        wide = [size for size in dict.fromkeys(sizes) if size != 1]
        fixed = [size for size in wide if isinstance(size, int)]
        result.append(1 if not wide else fixed[0] if fixed else largest(*wide))
    return tuple(result)


def _spread(dtype: str = "") -> Rule:
    def rule(node: Node) -> list[Type | None]:
        shapes = [node.shape(i) for i, name in enumerate(node.operation.inputs) if name]
        if node.opset < 7:  # only the second was spread then, to the first
            shapes = shapes[:1]
        return [Type(dtype or node.type(0).dtype, broadcast(*shapes))]

    return rule


def _same(node: Node) -> list[Type | None]:
    return [node.type(0)]


def _where(node: Node) -> list[Type | None]:
    return [Type(node.type(1).dtype, broadcast(node.shape(0), node.shape(1), node.shape(2)))]


def _cast(node: Node) -> list[Type | None]:
    dtype = node.type(1).dtype if node.operator == "CastLike" else dtype_name(node.attribute("to"))
    return [Type(dtype, node.type(0).shape)]


def _sizes(value: Any) -> list[Size]:
    sizes = list(value.reshape(-1))
    if not all(isinstance(size, (int, Expression)) for size in sizes):
        raise TypeError("sizes are no integers")
    return sizes


def _axes(node: Node, index: int) -> list[int] | None:
    if node.has(index):
        value = node.value(index)
        if value is None or not numeric(value):
            raise TypeError("axes are not known")
        return [int(item) for item in value.reshape(-1)]
    given = node.attribute("axes")
    return None if given is None else [int(axis) for axis in given]


def _reshape(node: Node) -> list[Type | None] | None:
    given, dtype = node.shape(0), node.type(0).dtype
    if not node.has(1) and node.attribute("shape") is None:
        return None
    if node.value(1) is None and node.has(1):
        rank = node.shape(1)[0]
        if not isinstance(rank, int):
            return None
        whole = product(given)
        return [Type(dtype, (whole,) if rank == 1 else tuple(node.fresh(0, axis, whole) for axis in range(rank)))]
    wanted = _sizes(node.value(1)) if node.has(1) else list(node.attribute("shape"))
    if not node.attribute("allowzero", 0):
        wanted = [given[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        at = wanted.index(-1)
        rest = product([size for axis, size in enumerate(wanted) if axis != at])
        whole = product(given)
        exact = divide(whole, rest) if rest != 0 else 0
        wanted[at] = exact if exact is not None else whole // rest
    return [Type(dtype, tuple(wanted))]


def _expand(node: Node) -> list[Type | None]:
    if node.value(1) is None:
        rank = node.shape(1)[0]
        if not isinstance(rank, int):
            raise TypeError("the rank is not known")
        given = node.shape(0)
        padded = (1,) * (rank - len(given)) + tuple(given)
        return [Type(node.type(0).dtype, tuple(node.fresh(0, a) if s == 1 else s for a, s in enumerate(padded)))]
    return [Type(node.type(0).dtype, broadcast(node.shape(0), tuple(_sizes(node.value(1)))))]


def _filled(node: Node) -> list[Type | None]:
    given = node.attribute("value")
    dtype = "float32"
    if given is not None:
        from onnx import AttributeProto

        attribute = AttributeProto()
        attribute.ParseFromString(given.data)
        dtype = dtype_name(attribute.t.data_type)
    if node.value(0) is None:
        rank = node.shape(0)[0]
        if not isinstance(rank, int):
            raise TypeError("the rank is not known")
        return [Type(dtype, tuple(node.fresh(0, axis) for axis in range(rank)))]
    return [Type(dtype, tuple(_sizes(node.value(0))))]


def _range(node: Node) -> list[Type | None]:
    dtype = node.type(0).dtype
    values = [node.value(i) for i in range(3)]
    if any(value is None for value in values):
        return [Type(dtype, (node.fresh(0, 0),))]
    start, limit, step = (value.item() for value in values)
    if isinstance(step, Expression) or step == 0:
        return [Type(dtype, (node.fresh(0, 0),))]
    if any(isinstance(item, float) for item in (start, limit, step)):
        import math

        return [Type(dtype, (max(0, math.ceil((limit - start) / step)),))]
    span = limit - start if step > 0 else start - limit
    return [Type(dtype, (largest(0, ceil_divide(span, abs(step))),))]


def _slice(node: Node) -> list[Type | None]:
    shape: list[Size] = list(node.shape(0))
    if len(node.operation.inputs) == 1:
        starts: Any = list(node.attribute("starts"))
        ends: Any = list(node.attribute("ends"))
        axes = list(node.attribute("axes") or range(len(starts)))
        steps = [1] * len(starts)
    else:
        count = node.shape(1)[0]
        axes_known = _axes(node, 3)
        if not isinstance(count, int):
            raise TypeError("the number of slices is not known")
        starts = [None] * count if node.value(1) is None else list(node.value(1).reshape(-1))
        ends = [None] * count if node.value(2) is None else list(node.value(2).reshape(-1))
        axes = axes_known if axes_known is not None else list(range(count))
        given = node.value(4)
        steps = [int(s) for s in given.reshape(-1)] if given is not None else [1 if not node.has(4) else 0] * count
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        if start is None or end is None or step == 0:
            shape[axis] = node.fresh(0, axis % len(shape), size)
        else:
            shape[axis] = sliced(size, start, end, step)
    return [Type(node.type(0).dtype, tuple(shape))]


def sliced(size: Size, start: Size, end: Size, step: int) -> Size:
    """Elements that a slice takes from an axis of ``size``."""
    if isinstance(start, int) and isinstance(end, int) and isinstance(size, int):
        return len(range(size)[slice(start, None if step < 0 and end < -size else end, step)])
    if step < 0:
        if start not in (-1, 2**63 - 1, 2**31 - 1) or not isinstance(end, int) or end >= -(2**31):
            raise TypeError("part of an axis backwards")
        return ceil_divide(size, -step)
    first = _edge(size, start)
    last = _edge(size, end)
    return ceil_divide(_not_below_zero(last - first), step)


def _edge(size: Size, at: Size) -> Size:
    """Where ``at`` lies on an axis: counted from the end where negative, and inside."""
    if isinstance(at, int):
        if at < 0:
            return _not_below_zero(size + at)
        if at >= 2**31 - 1:
            return size
        return 0 if at == 0 else smallest(size, at)
    difference = size - at
    if isinstance(difference, int):
        return at if difference >= 0 else size
    if all(factor < 0 for _, factor in at.terms):
        return _not_below_zero(size + at)
    return smallest(size, at)


def _not_below_zero(size: Size) -> Size:
    if isinstance(size, int):
        return max(0, size)
    return size if all(factor > 0 for _, factor in size.terms) else largest(0, size)


def _tile(node: Node) -> list[Type | None]:
    times = _sizes(node.value(1))
    return [Type(node.type(0).dtype, tuple(a * b for a, b in zip(node.shape(0), times, strict=True)))]


def _pad(node: Node) -> list[Type | None]:
    shape = list(node.shape(0))
    pads = _sizes(node.value(1)) if node.has(1) else list(node.attribute("pads"))
    axes = (_axes(node, 3) if node.has(3) else None) or list(range(len(shape)))
    for index, axis in enumerate(axes):
        shape[axis] = shape[axis] + pads[index] + pads[index + len(axes)]
    return [Type(node.type(0).dtype, tuple(shape))]


def _squeeze(node: Node) -> list[Type | None] | None:
    shape = node.shape(0)
    axes = _axes(node, 1)
    if axes is None:
        if any(isinstance(size, Expression) for size in shape):
            return None
        axes = [axis for axis, size in enumerate(shape) if size == 1]
    gone = {axis % len(shape) for axis in axes}
    return [Type(node.type(0).dtype, tuple(size for axis, size in enumerate(shape) if axis not in gone))]


def _unsqueeze(node: Node) -> list[Type | None] | None:
    axes = _axes(node, 1)
    if axes is None:
        return None
    sizes = list(node.shape(0))
    rank = len(sizes) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        sizes.insert(axis, 1)
    return [Type(node.type(0).dtype, tuple(sizes))]


def _transpose(node: Node) -> list[Type | None]:
    shape = node.shape(0)
    order = node.attribute("perm") or tuple(reversed(range(len(shape))))
    return [Type(node.type(0).dtype, tuple(shape[axis] for axis in order))]


def _concat(node: Node) -> list[Type | None]:
    shapes = [node.shape(i) for i in range(len(node.operation.inputs))]
    axis = node.attribute("axis", 1) % len(shapes[0])
    sizes = [broadcast(*[(shape[i],) for shape in shapes])[0] for i in range(len(shapes[0]))]
    total: Size = 0
    for shape in shapes:
        total = total + shape[axis]
    sizes[axis] = total
    return [Type(node.type(0).dtype, tuple(sizes))]


def _gather(node: Node) -> list[Type | None]:
    data, axis = node.shape(0), node.attribute("axis", 0)
    axis %= len(data)
    return [Type(node.type(0).dtype, (*data[:axis], *node.shape(1), *data[axis + 1 :]))]


def _gather_elements(node: Node) -> list[Type | None]:
    return [Type(node.type(0).dtype, node.shape(1))]


def _gather_nd(node: Node) -> list[Type | None]:
    data, indices = node.shape(0), node.shape(1)
    last, batch = indices[-1], node.attribute("batch_dims", 0)
    if not isinstance(last, int):
        raise TypeError("the depth of the indices is not known")
    return [Type(node.type(0).dtype, (*indices[:-1], *data[batch + last :]))]


def _split(node: Node) -> list[Type | None]:
    shape, count = node.shape(0), len(node.operation.outputs)
    axis = node.attribute("axis", 0) % len(shape)
    value = node.value(1) if node.has(1) else None
    parts: list[Size] = _sizes(value) if value is not None else list(node.attribute("split") or ())
    if not parts:
        size = shape[axis]
        each = ceil_divide(size, count)
        parts = (
            [each] * (count - 1) + [size - each * (count - 1)]
            if not node.has(1)
            else [node.fresh(i, axis, size) for i in range(count)]
        )
    return [Type(node.type(0).dtype, (*shape[:axis], part, *shape[axis + 1 :])) for part in parts]


def _matmul(node: Node) -> list[Type | None]:
    left, right = node.shape(0), node.shape(1)
    a = left if len(left) > 1 else (1, *left)
    b = right if len(right) > 1 else (*right, 1)
    outer = broadcast(a[:-2], b[:-2]) if len(a) > 2 or len(b) > 2 else ()
    tail = ((a[-2],) if len(left) > 1 else ()) + ((b[-1],) if len(right) > 1 else ())
    dtype = "int32" if node.operator == "MatMulInteger" else node.type(0).dtype
    return [Type(dtype, (*outer, *tail))]


def _fused_matmul(node: Node) -> list[Type | None]:
    left, right = list(node.shape(0)), list(node.shape(1))
    if node.attribute("transA", 0):
        left[-2:] = left[:-3:-1]
    if node.attribute("transB", 0):
        right[-2:] = right[:-3:-1]
    return [Type(node.type(0).dtype, (*broadcast(tuple(left[:-2]), tuple(right[:-2])), left[-2], right[-1]))]


def _gemm(node: Node) -> list[Type | None]:
    left, right = node.shape(0), node.shape(1)
    return [
        Type(
            node.type(0).dtype,
            (left[1 if node.attribute("transA", 0) else 0], right[0 if node.attribute("transB", 0) else 1]),
        )
    ]


def _flatten(node: Node) -> list[Type | None]:
    shape, axis = node.shape(0), node.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return [Type(node.type(0).dtype, (product(shape[:axis]), product(shape[axis:])))]


def _reduce(node: Node) -> list[Type | None]:
    shape = node.shape(0)
    axes = _axes(node, 1)
    dtype = "int64" if node.operator.startswith("Arg") else node.type(0).dtype
    if node.operator.startswith("Arg"):
        axes = [node.attribute("axis", 0)]
    if not axes and node.attribute("noop_with_empty_axes", 0):
        return [node.type(0)]
    gone = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    if node.attribute("keepdims", 1):
        return [Type(dtype, tuple(1 if axis in gone else size for axis, size in enumerate(shape)))]
    return [Type(dtype, tuple(size for axis, size in enumerate(shape) if axis not in gone))]


def _shape_of(node: Node) -> list[Type | None]:
    rank = len(node.shape(0))
    start, end = node.attribute("start", 0), node.attribute("end")
    return [Type("int64", (len(range(rank)[slice(start, rank if end is None else end)]),))]


def _normalized(node: Node) -> list[Type | None]:
    if node.operator == "LayerNormalization" and len(node.operation.outputs) > 1:
        return None  # type: ignore[return-value]
    return [node.type(0)]


def _dropout(node: Node) -> list[Type | None]:
    return [node.type(0), Type("bool" if node.opset >= 10 else node.type(0).dtype, node.type(0).shape)]


_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Mod", "And", "Or", "Xor", "BitwiseAnd",
               "BitwiseOr", "BitwiseXor", "BitShift")  # fmt: skip
_UNCHANGED = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Clip", "Cos", "Cosh", "CumSum",
    "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "LRN",
    "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Mish", "Neg", "Not", "PRelu",
    "Reciprocal", "Relu", "Round", "ScatterElements", "ScatterND", "Scatter", "Selu", "Shrink", "Sigmoid", "Sign", "Sin",
    "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu", "Trilu", "ReverseSequence",
    "GroupNormalization", "RMSNormalization", "TensorScatter", "com.microsoft:Gelu", "com.microsoft:FastGelu",
    "com.microsoft:QuickGelu",
)  # fmt: skip
_COMPARED = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_REDUCED = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
            "ReduceSum", "ReduceSumSquare", "ArgMax", "ArgMin")  # fmt: skip

RULES: dict[str, Rule] = {
    **DATA_RULES,
    **WINDOW_RULES,
    **dict.fromkeys(_ARITHMETIC, _spread()), **dict.fromkeys(_COMPARED, _spread("bool")), **dict.fromkeys(_UNCHANGED, _same),
    **dict.fromkeys(_REDUCED, _reduce), **dict.fromkeys(("IsNaN", "IsInf"), lambda node: [Type("bool", node.type(0).shape)]),
    "Where": _where, "Cast": _cast, "CastLike": _cast, "Reshape": _reshape, "Expand": _expand, "ConstantOfShape": _filled,
    "Range": _range, "Slice": _slice, "Tile": _tile, "Pad": _pad, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Transpose": _transpose, "Concat": _concat, "Gather": _gather, "GatherElements": _gather_elements,
    "GatherND": _gather_nd, "Split": _split, "MatMul": _matmul, "MatMulInteger": _matmul, "Gemm": _gemm,
    "com.microsoft:FusedMatMul": _fused_matmul, "Flatten": _flatten,
    "Shape": _shape_of, "LayerNormalization": _normalized, "Dropout": _dropout,
}  # fmt: skip
