"""Types of every value of an ONNX Program: sizes as numbers or expressions of the inputs' dimensions, never a hole.

    x: [batch, seq]    Shape(x) -> (batch, seq)   Slice -> (seq,)   Concat -> (1, seq, 64)   Reshape(y, .) -> [1, seq, 64]

Small integer tensors are followed as values with symbols inside (``shape_values``), because exporters compute shapes with
ordinary operators. Then, for each operation: our rule where there is one (``shape_rules``, ``shape_control`` for loops and
branches), else ``onnx``'s own inference of that one node, else what the file says. A size that depends on data becomes a
dimension of its own, named after the value, with an upper bound in ``meta["bounds"]`` where one is known.

Cost: about 0.1 ms an operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from memfit.frameworks.onnx.element_types import dtype_name, dtype_number
from memfit.frameworks.onnx.weights import Weights
from memfit.ir.dimension import Expression, Size, parse_size, symbol
from memfit.ir.program import OPTIONAL, SEQUENCE, Constant, Operation, Program, Type

_FOLLOWED = 4096
_WHOLE = frozenset(("int64", "int32", "bool", "int8", "uint8", "int16", "uint64", "uint32", "uint16"))
_FRACTIONS = frozenset(("float32", "float64", "float16"))


def infer_types(program: Program, weights: Weights, given: Mapping[str, Type] | None = None) -> Program:
    """``program`` with a type for every value.

    Args:
        program: its inputs and constants typed; other types are taken as hints.
        given: types that replace those of inputs (a user's, or those of a loop's state).
    """
    engine = Inference(program.meta.get("opsets", {"": 17}), weights)
    values: dict[str, Any] = {}
    whole = engine.run(program, {}, {}, dict(given or {}), results=values)
    bounds = {**program.meta.get("bounds", {}), **engine.bounds}
    return replace(whole, meta={**program.meta, "bounds": bounds, "values": values})


class Inference:
    """What is known so far about one model. ``bounds``: of dimensions that depend on data."""

    def __init__(self, opsets: Mapping[str, int], weights: Weights) -> None:
        self.opsets, self.weights = dict(opsets), weights
        self.bounds: dict[str, Size] = {}

    def run(
        self, program: Program, types: Mapping[str, Type], values: Mapping[str, Any], given: Mapping[str, Type],
        known: Mapping[str, Any] | None = None, results: dict[str, Any] | None = None,
    ) -> Program:  # fmt: skip
        """Infer a program inside the scope of ``types`` and ``values``; ``known``: values of its inputs."""
        scope = dict(types)
        facts = {**values, **(known or {})}
        own: dict[str, Type] = {}
        for name in program.inputs:
            own[name] = scope[name] = given.get(name, program.types.get(name, Type("undefined", None)))
        for name, constant in program.constants.items():
            own[name] = scope[name] = constant.type
            facts.pop(name, None)
            value = self.constant_value(constant)
            if value is not None:
                facts[name] = value
        operations = []
        for operation in program.operations:
            node = Node(self, operation, scope, facts)
            bodies, made = self._operation(node, program)
            for index, name in enumerate(operation.outputs):
                if not name:
                    continue
                own[name] = scope[name] = self._finished(made[index], name, program.types.get(name))
                if index < len(node.results) and node.results[index] is not None:
                    facts[name] = node.results[index]
                else:
                    facts.pop(name, None)
            operations.append(operation if bodies == operation.bodies else replace(operation, bodies=bodies))
        if results is not None:
            results.update({name: facts[name] for name in own if name in facts})
        return replace(program, operations=tuple(operations), types=own)

    def constant_value(self, constant: Constant) -> Any:
        """A small constant as an array of Python numbers, else None."""
        shape = constant.type.shape or ()
        if len(shape) > 2 or constant.nbytes > _FOLLOWED or constant.type.dtype not in _WHOLE | _FRACTIONS:
            return None
        return plain(self.weights.array(constant))

    def fresh(self, name: str, bound: Size | None = None) -> Expression:
        """A dimension that depends on data, called ``name``; at most ``bound``."""
        if bound is not None:
            self.bounds[name] = bound
        return symbol(name)

    def _operation(self, node: Node, program: Program) -> tuple[tuple[tuple[str, Program], ...], list[Type | None]]:
        from memfit.frameworks.onnx.shape_control import CONTROL
        from memfit.frameworks.onnx.shape_rules import RULES
        from memfit.frameworks.onnx.shape_values import follow

        count = len(node.operation.outputs)
        bodies = node.operation.bodies
        control = CONTROL.get(node.operator) if bodies else None
        made: list[Type | None] | None = None
        if control is not None:
            bodies, made = control(node)
        else:
            rule = RULES.get(node.operator)
            if rule is not None:
                try:
                    made = rule(node)
                except (IndexError, TypeError, AttributeError, ValueError, ZeroDivisionError):
                    made = None  # a rule met something that it does not know: onnx's inference decides
            if made is None:
                made = self._by_onnx(node, program)
        node.results = follow(node)
        made = [*made[:count], *[None] * (count - len(made))]
        return bodies, made

    def _finished(self, made: Type | None, name: str, hint: Type | None) -> Type:
        """No holes: what is missing comes from the file, else becomes a dimension of its own."""
        if made is None or made.dtype == "undefined":
            made = hint if hint is not None else Type("undefined", None)
        elif made.shape is None and hint is not None and hint.shape is not None:
            made = Type(made.dtype, hint.shape, made.form)
        if made.shape is None:
            return made
        stated = (
            hint.shape if hint is not None and hint.shape is not None and len(hint.shape) == len(made.shape) else None
        )
        sizes: list[Size] = []
        for axis, size in enumerate(made.shape):
            unknown = size is None
            if unknown and stated is not None:
                size = stated[axis]
            elif isinstance(size, Expression) and stated is not None and isinstance(stated[axis], int) and _own(size):
                size = stated[axis]  # it depends on data, and the file knows better
            sizes.append(self.fresh(f"{name}.{axis}") if size is None else size)
        return Type(made.dtype, tuple(sizes), made.form)

    def _by_onnx(self, node: Node, program: Program) -> list[Type | None]:
        import onnx

        operation = node.operation
        domain, _, operator = operation.kind.removeprefix("onnx.").rpartition(":")
        hints = [program.types.get(name) if name else None for name in operation.outputs]
        version = self.opsets.get(domain) or self.opsets.get("ai.onnx" if not domain else "")
        try:
            schema = onnx.defs.get_schema(operator, version or 1, domain)
        except onnx.defs.SchemaError:
            return hints
        from memfit.frameworks.onnx.writing import node_proto

        try:
            types = {
                name: type_proto(node.scope[name])
                for name in operation.inputs
                if name and node.scope[name].dtype != "undefined"
            }
            data = {}
            for name in operation.inputs:
                value = node.facts.get(name) if name else None
                if value is not None and numeric(value):
                    dtype = onnx.helper.tensor_dtype_to_np_dtype(dtype_number(node.scope[name].dtype))
                    data[name] = onnx.numpy_helper.from_array(np.array(value.tolist(), dtype=dtype))
            proto = node_proto(operation, self.weights)
            imports = [onnx.helper.make_opsetid(key, number) for key, number in self.opsets.items()]
            found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports)
        except Exception:  # onnx raises bare errors of many kinds for shapes that it will not accept
            return hints
        return [
            _from_proto(found[name]) if name in found else hint
            for name, hint in zip(operation.outputs, hints, strict=True)
        ]


def _own(size: Expression) -> bool:
    """Whether a size is one dimension named after a value (it has a dot)."""
    return len(size.terms) == 1 and len(size.terms[0][0]) == 1 and "." in str(size.terms[0][0][0])


class Node:
    """One operation as rules see it. ``results``: values of outputs that were followed."""

    def __init__(self, engine: Inference, operation: Operation, scope: dict[str, Type], facts: dict[str, Any]) -> None:
        self.engine, self.operation, self.scope, self.facts = engine, operation, scope, facts
        self.operator = operation.kind.removeprefix("onnx.")
        self.results: list[Any] = []

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.engine.opsets.get("", self.engine.opsets.get("ai.onnx", 17))

    def has(self, index: int) -> bool:
        """Whether input ``index`` is given."""
        return index < len(self.operation.inputs) and bool(self.operation.inputs[index])

    def type(self, index: int) -> Type:
        """Type of input ``index``."""
        return self.scope[self.operation.inputs[index]]

    def shape(self, index: int) -> tuple[Size, ...]:
        """Shape of input ``index``; a rule that needs one it does not have gives up (TypeError)."""
        shape = self.type(index).shape
        if shape is None:
            raise TypeError(f"the rank of {self.operation.inputs[index]} is unknown")
        return shape

    def value(self, index: int) -> Any:
        """Followed value of input ``index`` as an object array, or None."""
        return self.facts.get(self.operation.inputs[index]) if self.has(index) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.operation.attribute(name, default)

    def fresh(self, output: int, axis: int, bound: Size | None = None) -> Expression:
        """A dimension of output ``output`` that depends on data."""
        return self.engine.fresh(f"{self.operation.outputs[output] or self.operator}.{axis}", bound)


Rule = Callable[[Node], "list[Type | None] | None"]


def plain(array: Any) -> Any:
    """An array of Python numbers (dtype object), so that symbols may stand beside them."""
    result = np.empty(np.shape(array), dtype=object)
    flat = np.asarray(array).reshape(-1).tolist()
    result.reshape(-1)[:] = flat if flat else []
    return result


def numeric(value: Any) -> bool:
    """Whether no symbol is inside."""
    return not any(isinstance(item, Expression) for item in value.reshape(-1))


def type_proto(given: Type) -> Any:
    """The TypeProto of a Type; expressions as dim_param."""
    from onnx import helper

    shape: Any = None if given.shape is None else [s if isinstance(s, int) else str(s) for s in given.shape]
    if given.form == SEQUENCE:
        inner = helper.make_tensor_type_proto(dtype_number(given.dtype), None if shape is None else shape[1:])
        return helper.make_sequence_type_proto(inner)
    tensor = helper.make_tensor_type_proto(dtype_number(given.dtype), shape)
    return helper.make_optional_type_proto(tensor) if given.form == OPTIONAL else tensor


def _from_proto(proto: Any) -> Type:
    which = proto.WhichOneof("value")
    if which == "sequence_type":
        inner = _from_proto(proto.sequence_type.elem_type)
        return Type(inner.dtype, None if inner.shape is None else (None, *inner.shape), SEQUENCE)  # type: ignore[arg-type]
    if which == "optional_type":
        inner = _from_proto(proto.optional_type.elem_type)
        return Type(inner.dtype, inner.shape, inner.form or OPTIONAL)
    if which != "tensor_type":
        return Type("undefined", None)
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return Type(dtype_name(tensor.elem_type), None)
    sizes: list[Any] = []
    for size in tensor.shape.dim:
        if size.HasField("dim_value"):
            sizes.append(int(size.dim_value))
        else:
            sizes.append(
                parse_size(size.dim_param) if size.dim_param and not size.dim_param.startswith("unk__") else None
            )
    return Type(dtype_name(tensor.elem_type), tuple(sizes))
