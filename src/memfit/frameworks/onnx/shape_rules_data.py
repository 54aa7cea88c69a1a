"""Shape rules for operators whose sizes depend on data, and for lists of tensors.

A size that depends on data is a dimension of its own, with an upper bound: the most that the operator can give.
"""

from __future__ import annotations

from typing import Any

from memfit.frameworks.onnx.element_types import dtype_name
from memfit.frameworks.onnx.shapes import Node, Rule, numeric
from memfit.ir.dimension import Expression, Shape, Size, ceil_divide, largest, product, smallest
from memfit.ir.program import SEQUENCE, Type


def _sizes(value: Any) -> list[Size]:
    sizes = list(value.reshape(-1))
    if not all(isinstance(size, (int, Expression)) for size in sizes):
        raise TypeError("sizes are no integers")
    return sizes


def _nonzero(node: Node) -> list[Type | None]:
    shape = node.shape(0)
    return [Type("int64", (max(len(shape), 1), node.fresh(0, 1, product(shape))))]


def _compress(node: Node) -> list[Type | None]:
    shape, axis = node.shape(0), node.attribute("axis")
    if axis is None:
        return [Type(node.type(0).dtype, (node.fresh(0, 0, product(shape)),))]
    sizes = list(shape)
    sizes[axis] = node.fresh(0, axis % len(shape), shape[axis])
    return [Type(node.type(0).dtype, tuple(sizes))]


def _unique(node: Node) -> list[Type | None]:
    shape, axis = node.shape(0), node.attribute("axis")
    whole = product(shape) if axis is None else shape[axis]
    count = node.fresh(0, 0 if axis is None else axis % len(shape), whole)
    first: Shape = (
        (count,) if axis is None else tuple(count if i == axis % len(shape) else s for i, s in enumerate(shape))
    )
    return [Type(node.type(0).dtype, first), Type("int64", (count,)), Type("int64", (whole,)), Type("int64", (count,))]


def _suppression(node: Node) -> list[Type | None]:
    boxes, scores = node.shape(0), node.shape(1)
    limit = node.value(2)
    each: Size = boxes[1]
    if limit is not None and numeric(limit):
        each = smallest(each, int(limit.item()))
    return [Type("int64", (node.fresh(0, 0, scores[0] * scores[1] * each), 3))]


def _top(node: Node) -> list[Type | None]:
    sizes = list(node.shape(0))
    axis = node.attribute("axis", -1) % len(sizes)
    count = node.attribute("k") if not node.has(1) else None if node.value(1) is None else _sizes(node.value(1))[0]
    sizes[axis] = node.fresh(0, axis, sizes[axis]) if count is None else count
    return [Type(node.type(0).dtype, tuple(sizes)), Type("int64", tuple(sizes))]


def _one_hot(node: Node) -> list[Type | None]:
    shape = list(node.shape(0))
    axis = node.attribute("axis", -1)
    depth = node.value(1)
    size: Size = node.fresh(0, axis % (len(shape) + 1)) if depth is None else _sizes(depth)[0]
    shape.insert(axis + len(shape) + 1 if axis < 0 else axis, size)
    return [Type(node.type(2).dtype, tuple(shape))]


def _sequence_split(node: Node) -> list[Type | None]:
    shape = list(node.shape(0))
    axis = node.attribute("axis", 0) % len(shape)
    size, split = shape[axis], node.value(1) if node.has(1) else None
    count: Size
    if not node.has(1):
        count, part = size, 1
        if not node.attribute("keepdims", 1):
            return [Type(node.type(0).dtype, (count, *shape[:axis], *shape[axis + 1 :]), SEQUENCE)]
    elif split is None:
        count, part = node.fresh(0, 0, size), node.fresh(0, axis + 1, size)  # type: ignore[assignment]
    elif split.ndim == 0:
        part = split.item()
        count = ceil_divide(size, part)
    else:
        sizes = _sizes(split)
        count, part = len(sizes), largest(*sizes)  # type: ignore[assignment]
    shape[axis] = part
    return [Type(node.type(0).dtype, (count, *shape), SEQUENCE)]


def _sequence_at(node: Node) -> list[Type | None]:
    return [Type(node.type(0).dtype, node.shape(0)[1:])]


def _sequence_made(node: Node) -> list[Type | None]:
    shapes = [node.shape(i) for i in range(len(node.operation.inputs))]
    if len({len(shape) for shape in shapes}) != 1:
        raise TypeError("elements differ in rank")
    return [
        Type(node.type(0).dtype, (len(shapes), *(largest(*sizes) for sizes in zip(*shapes, strict=True))), SEQUENCE)
    ]


def _sequence_empty(node: Node) -> list[Type | None]:
    return [Type(dtype_name(node.attribute("dtype", 1)), (0,), SEQUENCE)]


def _sequence_grown(node: Node) -> list[Type | None]:
    given, element = node.shape(0), node.shape(1)
    inner = element if len(given) <= 1 else tuple(largest(a, b) for a, b in zip(given[1:], element, strict=True))
    return [Type(node.type(1).dtype, (given[0] + 1, *inner), SEQUENCE)]


def _sequence_shrunk(node: Node) -> list[Type | None]:
    given = node.shape(0)
    return [Type(node.type(0).dtype, (given[0] - 1, *given[1:]), SEQUENCE)]


def _sequence_joined(node: Node) -> list[Type | None]:
    given = node.shape(0)
    count, inner = given[0], list(given[1:])
    axis = node.attribute("axis", 0)
    if node.attribute("new_axis", 0):
        inner.insert(axis % (len(inner) + 1), count)
    else:
        inner[axis] = inner[axis] * count
    return [Type(node.type(0).dtype, tuple(inner))]


def _scalar(node: Node) -> list[Type | None]:
    return [Type("bool" if node.operator == "OptionalHasElement" else "int64", ())]


DATA_RULES: dict[str, Rule] = {
    "NonZero": _nonzero,
    "Compress": _compress, "Unique": _unique, "NonMaxSuppression": _suppression, "TopK": _top, "OneHot": _one_hot,
    "SplitToSequence": _sequence_split, "SequenceAt": _sequence_at, "SequenceConstruct": _sequence_made,
    "SequenceEmpty": _sequence_empty, "SequenceInsert": _sequence_grown, "SequenceErase": _sequence_shrunk,
    "ConcatFromSequence": _sequence_joined, "SequenceLength": _scalar, "OptionalHasElement": _scalar, "Size": _scalar,
}  # fmt: skip
