"""Small integer tensors followed as values with dimensions inside: what exporters compute shapes with.

Each rule works on arrays of Python objects, so that NumPy's own indexing, concatenation and arithmetic serve numbers and
expressions alike. A comparison that the expressions do not decide ends the following of that value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from memfit.frameworks.onnx.shapes import Node, numeric, plain
from memfit.ir.dimension import Expression, Size, largest, product, smallest

_LONGEST = 1024
_INTEGERS = frozenset(("int64", "int32", "bool", "int8", "uint8", "int16", "uint64", "uint32", "uint16"))


def follow(node: Node) -> list[Any]:
    """Values of the node's outputs as object arrays, None where not followed."""
    rule = _VALUES.get(node.operator)
    if rule is None:
        return []
    try:
        result = rule(node)
    except (IndexError, TypeError, ValueError, ZeroDivisionError, AttributeError, OverflowError):
        return []
    if result is None:
        return []
    results = result if isinstance(result, list) else [result]
    return [value if value is not None and value.size <= _LONGEST else None for value in results]


def _array(items: Any) -> Any:
    items = list(items)
    result = np.empty(len(items), dtype=object)
    result[:] = items
    return result


def _scalar(item: Size) -> Any:
    result = np.empty((), dtype=object)
    result[()] = item
    return result


def _all(node: Node) -> list[Any]:
    values = [node.value(i) for i, name in enumerate(node.operation.inputs) if name]
    if any(value is None for value in values):
        raise TypeError
    return values


def _shape(node: Node) -> Any:
    shape = node.shape(0)
    start, end = node.attribute("start", 0), node.attribute("end")
    return _array(shape[start:] if end is None else shape[start:end])


def _cast(node: Node) -> Any:
    from memfit.frameworks.onnx.element_types import dtype_name

    value = node.value(0)
    if value is None:
        return None
    target = node.type(1).dtype if node.operator == "CastLike" else dtype_name(node.attribute("to"))
    if target == "bool":
        return plain(np.array(value.tolist(), dtype=bool)) if numeric(value) else None
    if target in _INTEGERS:
        if all(isinstance(item, (int, Expression)) for item in value.reshape(-1)):
            return value if node.type(0).dtype != "bool" else plain(np.array(value.tolist(), dtype=np.int64))
        return _each(lambda x: int(x), value) if numeric(value) else None
    if target in ("float32", "float64"):
        return _each(lambda x: x if isinstance(x, Expression) else float(x), value)
    return None


def _each(function: Callable[..., Any], *values: Any) -> Any:
    spread = np.broadcast_arrays(*values)
    result = np.empty(spread[0].shape, dtype=object)
    flat = [function(*items) for items in zip(*(s.reshape(-1) for s in spread), strict=True)]
    result.reshape(-1)[:] = flat if flat else []
    return result


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Node], Any]:
    def rule(node: Node) -> Any:
        left, right = _all(node)
        whole = node.type(0).dtype in _INTEGERS
        if not whole and not (numeric(left) and numeric(right)):
            return None
        return _each(function, left, right)

    return rule


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a >= 0) == (b >= 0) else -1)  # C's division, which ONNX's is
    return a // b


def _compare(name: str) -> Callable[[Any, Any], bool]:
    def decide(a: Any, b: Any) -> bool:
        difference = a - b
        if isinstance(difference, Expression):
            if name == "Equal" and _positive(difference):
                return False
            if name in ("Greater", "GreaterOrEqual") and _positive(difference):
                return True
            if name in ("Less", "LessOrEqual") and _positive(b - a):
                return True
            if name in ("Less", "LessOrEqual") and _positive(difference):
                return False
            if name == "Equal" and _positive(b - a):
                return False
            raise TypeError("not decided")
        return bool({"Equal": difference == 0, "Greater": difference > 0, "Less": difference < 0,
                     "GreaterOrEqual": difference >= 0, "LessOrEqual": difference <= 0}[name])  # fmt: skip

    return decide


def _positive(size: Size) -> bool:
    """Whether a size is above 0 whatever its dimensions, which are never below 0."""
    if isinstance(size, int):
        return size > 0
    return all(factor > 0 for _, factor in size.terms) and size.terms[-1][0] == ()


def _gather(node: Node) -> Any:
    data, indices = _all(node)
    return np.asarray(
        np.take(data, np.array(indices.tolist(), dtype=np.int64), axis=node.attribute("axis", 0)), dtype=object
    )


def _slice(node: Node) -> Any:
    data = node.value(0)
    if data is None:
        return None
    if len(node.operation.inputs) == 1:
        starts, ends = list(node.attribute("starts")), list(node.attribute("ends"))
        axes = list(node.attribute("axes") or range(len(starts)))
        steps = [1] * len(starts)
    else:
        given = [node.value(i) for i in range(1, len(node.operation.inputs))]
        starts, ends = list(given[0]), list(given[1])
        axes = [int(a) for a in given[2]] if node.has(3) else list(range(len(starts)))
        steps = [int(s) for s in given[3]] if node.has(4) else [1] * len(starts)
    index: list[Any] = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop: Any = int(end)
        if step < 0 and stop < -data.shape[axis]:
            stop = None
        index[axis] = slice(int(start), stop, int(step))
    return data[tuple(index)]


def _axes(node: Node, index: int = 1) -> list[int] | None:
    if node.has(index):
        value = node.value(index)
        if value is None:
            raise TypeError
        return [int(item) for item in value.reshape(-1)]
    given = node.attribute("axes")
    return None if given is None else list(given)


def _squeeze(node: Node) -> Any:
    (data,) = _all(node)[:1]
    axes = _axes(node)
    return (
        data.reshape(()) if axes is None and data.size == 1 else np.squeeze(data, None if axes is None else tuple(axes))
    )


def _unsqueeze(node: Node) -> Any:
    data = node.value(0)
    axes = _axes(node)
    return None if data is None or axes is None else np.expand_dims(data, tuple(axes))


def _reshape(node: Node) -> Any:
    data, shape = node.value(0), node.value(1)
    return None if data is None or shape is None or not numeric(shape) else data.reshape([int(s) for s in shape])


def _transpose(node: Node) -> Any:
    data = node.value(0)
    return None if data is None else np.transpose(data, node.attribute("perm"))


def _concat(node: Node) -> Any:
    return np.concatenate(_all(node), axis=node.attribute("axis", 0))


def _range(node: Node) -> Any:
    start, limit, delta = (value.item() for value in _all(node))
    return plain(np.arange(start, limit, delta)) if all(isinstance(x, int) for x in (start, limit, delta)) else None


def _where(node: Node) -> Any:
    condition = node.value(0)
    if condition is None:
        return None
    left, right = node.value(1), node.value(2)
    if left is None or right is None:
        return None
    return _each(lambda c, a, b: a if c else b, condition, left, right)


def _reduce(function: Callable[[Any], Any]) -> Callable[[Node], Any]:
    def rule(node: Node) -> Any:
        data = node.value(0)
        if data is None or data.ndim > 1:
            return None
        total = function(list(data.reshape(-1)))
        return _array([total]) if node.attribute("keepdims", 1) and data.ndim else _scalar(total)

    return rule


def _filled(node: Node) -> Any:
    from onnx import AttributeProto, numpy_helper

    shape = node.value(0)
    if shape is None or not numeric(shape) or product([int(s) for s in shape]) > _LONGEST:  # type: ignore[operator]
        return None
    given = node.attribute("value")
    fill: Any = 0.0
    if given is not None:
        attribute = AttributeProto()
        attribute.ParseFromString(given.data)
        fill = numpy_helper.to_array(attribute.t).reshape(-1).tolist()[0]
    result = np.empty([int(s) for s in shape], dtype=object)
    result.reshape(-1)[:] = [fill] * result.size
    return result


def _expand(node: Node) -> Any:
    data, shape = node.value(0), node.value(1)
    if data is None or shape is None or not numeric(shape):
        return None
    sizes = [int(s) for s in shape]
    if product(sizes) > _LONGEST:  # type: ignore[operator]
        return None
    return np.array(np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(sizes))), dtype=object)


def _tile(node: Node) -> Any:
    data, times = _all(node)
    return np.tile(data, [int(t) for t in times])


def _split(node: Node) -> Any:
    data = node.value(0)
    if data is None:
        return None
    parts = node.value(1) if node.has(1) else node.attribute("split")
    count = len(node.operation.outputs)
    axis = node.attribute("axis", 0)
    if parts is None:
        return list(np.array_split(data, count, axis=axis))
    return list(np.split(data, np.cumsum([int(p) for p in parts])[:-1], axis=axis))


def _unary(function: Callable[[Any], Any]) -> Callable[[Node], Any]:
    def rule(node: Node) -> Any:
        data = node.value(0)
        return None if data is None else _each(function, data)

    return rule


def _rounded(function: str) -> Callable[[Any], Any]:
    import math

    def rule(item: Any) -> Any:
        return item if isinstance(item, Expression) else float(getattr(math, function)(item))

    return rule


def _extreme(plainly: Callable[..., Any], symbolic: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: symbolic(a, b) if isinstance(a, Expression) or isinstance(b, Expression) else plainly(a, b)


def _not(item: Any) -> bool:
    if isinstance(item, Expression):
        raise TypeError
    return not item


_VALUES: dict[str, Callable[[Node], Any]] = {
    "Shape": _shape, "Size": lambda node: _scalar(product(node.shape(0))), "Identity": lambda node: node.value(0),
    "Cast": _cast, "CastLike": _cast, "Gather": _gather, "Slice": _slice, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Reshape": _reshape, "Transpose": _transpose, "Concat": _concat, "Range": _range, "Where": _where,
    "Add": _binary(lambda a, b: a + b), "Sub": _binary(lambda a, b: a - b), "Mul": _binary(lambda a, b: a * b),
    "Div": _binary(_divide), "Mod": _binary(lambda a, b: a % b), "Neg": _unary(lambda a: 0 - a),
    "Max": _binary(_extreme(max, largest)), "Min": _binary(_extreme(min, smallest)),
    "Abs": _unary(lambda a: a if isinstance(a, Expression) else abs(a)),
    "ReduceProd": _reduce(product), "ReduceSum": _reduce(lambda items: sum(items)),
    "ReduceMax": _reduce(lambda items: largest(*items)), "ReduceMin": _reduce(lambda items: smallest(*items)),
    "ConstantOfShape": _filled, "Expand": _expand, "Tile": _tile, "Split": _split,
    "Equal": _binary(_compare("Equal")), "Greater": _binary(_compare("Greater")), "Less": _binary(_compare("Less")),
    "GreaterOrEqual": _binary(_compare("GreaterOrEqual")), "LessOrEqual": _binary(_compare("LessOrEqual")),
    "And": _binary(lambda a, b: bool(a) and bool(b)), "Or": _binary(lambda a, b: bool(a) or bool(b)), "Not": _unary(_not),
    "Floor": _unary(_rounded("floor")), "Ceil": _unary(_rounded("ceil")),
    "SequenceLength": lambda node: _scalar(node.shape(0)[0]),
}  # fmt: skip
