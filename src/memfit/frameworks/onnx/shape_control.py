"""Shapes through branches and loops: bodies are inferred inside the scope of what is around them.

If      both bodies; sizes that agree stay, one that differs becomes a dimension, at most the larger of the two
Loop    the state starts with the shape that it is given; a size that one turn changes becomes a dimension and the body is
        inferred again; a size that grows by the same amount each turn is bounded by start + turns * amount
Scan    the body on one slice; what is collected gets the scanned length
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memfit.frameworks.onnx.shapes import Node, numeric
from memfit.ir.dimension import Size, bind, largest
from memfit.ir.program import SEQUENCE, Program, Type

Bodies = tuple[tuple[str, Program], ...]
Made = list["Type | None"]


def _if(node: Node) -> tuple[Bodies, Made]:
    bodies = tuple((name, node.engine.run(body, node.scope, node.facts, {})) for name, body in node.operation.bodies)
    condition = node.value(0)
    if condition is not None and numeric(condition):
        wanted = "then_branch" if bool(condition.item()) else "else_branch"
        chosen = dict(bodies)[wanted]
        return bodies, [_of(chosen, name, node) for name in chosen.outputs]
    sides = [[_of(body, name, node) for name in body.outputs] for _, body in bodies]
    return bodies, [_either(node, index, pair) for index, pair in enumerate(zip(*sides, strict=True))]


def _of(body: Program, name: str, node: Node) -> Type:
    return body.types.get(name) or node.scope[name]


def _either(node: Node, output: int, pair: Sequence[Type]) -> Type:
    left, right = pair
    if left.shape is None or right.shape is None or len(left.shape) != len(right.shape):
        return Type(left.dtype, None, left.form)
    sizes: list[Size] = []
    for axis, (a, b) in enumerate(zip(left.shape, right.shape, strict=True)):
        sizes.append(a if a == b else node.fresh(output, axis, largest(a, b)))
    return Type(left.dtype, tuple(sizes), left.form)


def _loop(node: Node) -> tuple[Bodies, Made]:
    (attribute, body), *_ = node.operation.bodies
    turns = _turns(node)
    first = [node.type(index) for index in range(2, len(node.operation.inputs))]
    names = body.inputs[2:]
    given = {
        body.inputs[0]: Type("int64", ()),
        body.inputs[1]: Type("bool", ()),
        **dict(zip(names, first, strict=False)),
    }
    inferred, ends = _settled(node, body, given, names, body.outputs[1 : 1 + len(first)], turns)
    made: Made = [_carried(node, index, first[index], ends[index]) for index in range(len(first))]
    for index, name in enumerate(body.outputs[1 + len(first) :], start=len(first)):
        inner = _of(inferred, name, node)
        count = turns if turns is not None and _always(node, body) else node.fresh(index, 0, turns)
        made.append(Type(inner.dtype, None if inner.shape is None else (count, *inner.shape)))
    return ((attribute, inferred),), made


def _turns(node: Node) -> Size | None:
    value = node.value(0)
    return None if value is None else largest(0, value.reshape(-1)[0])


def _always(node: Node, body: Program) -> bool:
    """Whether the loop runs all its turns: the condition is left out, or the body hands on one that is true."""
    start = node.value(1)
    if node.has(1) and not (start is not None and numeric(start) and bool(start.item())):
        return False
    name = body.outputs[0]
    for operation in body.operations:
        if name in operation.outputs and operation.kind == "onnx.Identity":
            name = operation.inputs[0]
    if name == body.inputs[1]:
        return True
    constant = body.constants.get(name)
    return constant is not None and bool(node.engine.weights.array(constant).reshape(-1)[0])


def _settled(
    node: Node, body: Program, given: dict[str, Type], names: Sequence[str], ends: Sequence[str], turns: Size | None
) -> tuple[Program, list[Type]]:  # fmt: skip
    """Infer the body until its state has shapes that a turn keeps."""
    inferred = body
    for _ in range(4):
        inferred = node.engine.run(body, node.scope, node.facts, given)
        changed = False
        for name, end in zip(names, ends, strict=True):
            before, after = given[name], _of(inferred, end, node)
            wider = _wider(node, name, before, after, turns)
            changed |= wider != before
            given[name] = wider
        if not changed:
            break
    return inferred, [given[name] for name in names]


def _wider(node: Node, name: str, before: Type, after: Type, turns: Size | None) -> Type:
    dtype = before.dtype if before.dtype != "undefined" else after.dtype
    if (
        before.form == SEQUENCE
        and before.shape is not None
        and after.shape is not None
        and len(before.shape) == 1 < len(after.shape)
    ):
        before = Type(
            dtype, (before.shape[0], *after.shape[1:]), SEQUENCE
        )  # it was empty: elements show in the first turn
    if before.shape is None or after.shape is None or len(before.shape) != len(after.shape):
        return Type(dtype, None, before.form)
    sizes: list[Size] = []
    for axis, (a, b) in enumerate(zip(before.shape, after.shape, strict=True)):
        label = f"{name}.{axis}"
        if a == b or str(a) == label:
            sizes.append(a)
            continue
        growth = b - a
        steady = isinstance(growth, int) or all(label not in str(t) for t in growth.terms)
        bound = a + turns * growth if turns is not None and steady else None
        sizes.append(node.engine.fresh(label, bound))
    return Type(dtype, tuple(sizes), before.form)


def _carried(node: Node, output: int, first: Type, end: Type) -> Type:
    """What the loop hands on: the state's shape, its open sizes under this output's own name."""
    if end.shape is None or first.shape is None:
        return Type(end.dtype, None, end.form)
    bounds = node.engine.bounds
    sizes: list[Size] = []
    for axis, size in enumerate(end.shape):
        inside = str(size)
        kept = axis < len(first.shape) and first.shape[axis] == size
        sizes.append(
            size if kept or isinstance(size, int) else node.fresh(output, axis, bounds.get(inside, bind(size, bounds)))
        )
    return Type(end.dtype, tuple(sizes), end.form)


def _scan(node: Node) -> tuple[Bodies, Made]:
    (attribute, body), *_ = node.operation.bodies
    offset = 1 if node.opset < 9 else 0  # the first version had a batch axis and lengths
    scanned = node.attribute("num_scan_inputs")
    states = len(node.operation.inputs) - offset - scanned
    axes = node.attribute("scan_input_axes") or (0,) * scanned
    length: Size = 0
    given: dict[str, Type] = {}
    for index, name in enumerate(body.inputs):
        outer = node.type(index + offset)
        shape = outer.shape
        if shape is not None and offset:
            shape = shape[1:]
        if index >= states and shape is not None:
            axis = axes[index - states] % len(shape)
            length = shape[axis]
            shape = (*shape[:axis], *shape[axis + 1 :])
        given[name] = Type(outer.dtype, shape)
    inferred, ends = _settled(node, body, given, body.inputs[:states], body.outputs[:states], length)
    batch: tuple[Size, ...] = (node.shape(offset)[0],) if offset else ()
    made: Made = [Type(t.dtype, None if t.shape is None else (*batch, *t.shape)) for t in ends]
    places = node.attribute("scan_output_axes") or (0,) * (len(body.outputs) - states)
    for name, place in zip(body.outputs[states:], places, strict=True):
        inner = _of(inferred, name, node)
        shape = inner.shape
        if shape is not None:
            at = place % (len(shape) + 1)
            shape = (*batch, *shape[:at], length, *shape[at:])
        made.append(Type(inner.dtype, shape))
    return ((attribute, inferred),), made


def _sequence_map(node: Node) -> tuple[Bodies, Made]:
    (attribute, body), *_ = node.operation.bodies
    given = {}
    for index, name in enumerate(body.inputs):
        outer = node.type(index)
        given[name] = Type(outer.dtype, outer.shape[1:] if outer.form == SEQUENCE and outer.shape else outer.shape)
    inferred = node.engine.run(body, node.scope, node.facts, given)
    count = node.shape(0)[0]
    inner = [_of(inferred, name, node) for name in body.outputs]
    return ((attribute, inferred),), [
        Type(t.dtype, None if t.shape is None else (count, *t.shape), SEQUENCE) for t in inner
    ]


CONTROL: dict[str, Callable[[Node], tuple[Bodies, Made]]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "SequenceMap": _sequence_map,
}
