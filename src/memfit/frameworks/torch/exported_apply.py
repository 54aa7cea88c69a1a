"""Program -> a PyTorch module that runs its operations in their order, with the arguments and the result of the exported model.

Each operation calls the operator that the capture kept, so that what no pass touched is bit-equal. Weights keep their
qualified names; constants that passes made are buffers. Trees of arguments and results are rebuilt from built-in types
(a class of somebody else's, such as a model output, comes back as a dict).
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from memfit.errors import TargetError
from memfit.frameworks.torch.exported_arguments import filled
from memfit.frameworks.torch.exported_capture import Exported
from memfit.frameworks.torch.exported_schema import callable_of
from memfit.ir.program import Constant, Operation, Program

Tensors = Callable[[str], torch.Tensor]


@dataclass
class Values:
    """Tensors behind references: the file's, mapped, and those that passes made."""

    exported: Exported
    made: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, reference: str) -> torch.Tensor:
        """The tensor of a reference; not to be written to."""
        if reference in self.made:
            return self.made[reference]
        return self.exported.file.tensor(self.exported.weights[reference])


class Bench:
    """A ``passes.workbench.Workbench`` over one file."""

    def __init__(self, values: Values) -> None:
        self.values = values

    def array(self, constant: Constant) -> Any:
        """The constant as an array; a type that NumPy lacks as float32."""
        tensor = self.values(constant.reference)
        return tensor.numpy() if tensor.dtype not in _WITHOUT_NUMPY else tensor.float().numpy()

    def keep(self, array: Any) -> Constant:
        """The constant with a tensor's or array's content."""
        import hashlib

        from memfit.ir.program import Type

        tensor = array if isinstance(array, torch.Tensor) else torch.as_tensor(array)
        tensor = tensor.contiguous()
        made = Type(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        content = hashlib.blake2b(bytes_of(tensor), digest_size=12).hexdigest()
        reference = f"{made}:{content}"
        self.values.made.setdefault(reference, tensor)
        return Constant(made, reference)

    def evaluate(
        self, program: Program, operations: Sequence[Operation], wanted: Sequence[str]
    ) -> Mapping[str, Any] | None:
        """Values of ``wanted`` that ``operations`` make out of constants; None where PyTorch refuses."""
        known: dict[str, Any] = {name: self.values(c.reference) for name, c in program.constants.items()}
        try:
            with torch.no_grad():
                for operation in operations:
                    call = _call(program, operation)
                    given = [known[name] for name in operation.inputs]
                    result = call(*_filled(operation, given, ()), **_keywords(operation, given, ()))
                    known.update(_made(operation, result))
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, NotImplementedError, TargetError):
            return None
        found = {name: known[name] for name in wanted}
        return found if all(isinstance(value, torch.Tensor) for value in found.values()) else None


_WITHOUT_NUMPY = frozenset((torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
                            torch.float8_e5m2fnuz, torch.float8_e8m0fnu))  # fmt: skip


def bytes_of(tensor: torch.Tensor) -> Any:
    """The bytes of a tensor, for hashing."""
    flat = tensor.contiguous().view(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else b""


def _call(program: Program, operation: Operation) -> Callable[..., Any]:
    target = operation.attribute("target")
    call: Callable[..., Any] | None = callable_of(target)
    if call is None:
        raise TargetError(
            program.name, f"the operator {target.removeprefix('torch.ops.')} is unknown here, or none that a file may call",
            "import the library that brings it and use the Python interface",
        )  # fmt: skip
    return call


def _keywords(operation: Operation, values: Sequence[Any], bodies: Sequence[Any]) -> dict[str, Any]:
    return {name: filled(value, values, bodies) for name, value in operation.attribute("keywords")}


def _filled(operation: Operation, values: Sequence[Any], bodies: Sequence[Any]) -> list[Any]:
    return [filled(template, values, bodies) for template in operation.attribute("positional")]


def _made(operation: Operation, result: Any) -> dict[str, Any]:
    results = [result] if operation.attribute("single") else list(result)
    return {name: value for name, value in zip(operation.outputs, results, strict=True) if name}


def module_of(exported: Exported, program: Program, tensors: Tensors) -> torch.fx.GraphModule:
    """A module that runs ``program``.

    Args:
        exported: what was captured.
        program: ``exported.program``, or what passes made of it.
        tensors: the tensor of a constant's reference, made anew for each call where it should not be shared.

    Raises:
        TargetError: an operator is not registered here.
    """
    root = torch.nn.Module()
    where = {}
    taken: dict[str, str] = {}
    for name, constant in program.constants.items():
        if constant.reference in taken:
            where[name] = taken[constant.reference]
            continue
        weight = exported.weights.get(constant.reference)
        path = exported.names.get(name, f"folded.{name}").replace("~", "_")
        _place(root, path, tensors(constant.reference), weight is not None and weight.trained)
        where[name] = taken[constant.reference] = path
    graph = torch.fx.Graph()
    nodes: dict[str, Any] = {}
    names = [name for name, _ in exported.arguments if name is not None]
    for name in names:
        nodes[name] = graph.placeholder(name)
    for name, path in where.items():
        nodes[name] = graph.get_attr(path)
    _write(program, program.operations, graph, nodes, root)
    graph.output(tuple(nodes[name] if name is not None else value for name, value in exported.results))
    return torch.fx.GraphModule(root, graph)


def _place(root: torch.nn.Module, path: str, tensor: torch.Tensor, trained: bool) -> None:
    *folders, last = path.split(".")
    at = root
    for folder in folders:
        if folder not in at._modules:
            at.add_module(folder, torch.nn.Module())
        at = at.get_submodule(folder)
    if trained and tensor.is_floating_point():
        at.register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
    else:
        at.register_buffer(last, tensor)


def _write(
    program: Program, operations: Sequence[Operation], graph: torch.fx.Graph, nodes: dict[str, Any], root: torch.nn.Module
) -> None:  # fmt: skip
    for operation in operations:
        call = _call(program, operation)
        bodies = [_body(body, graph, root) for _, body in operation.bodies]
        values = [nodes[name] for name in operation.inputs]
        arguments = tuple(_tupled(call, value) for value in _filled(operation, values, bodies))
        made = graph.call_function(call, arguments, _keywords(operation, values, bodies))
        if operation.attribute("single"):
            nodes.update((name, made) for name in operation.outputs)
            continue
        for index, name in enumerate(operation.outputs):
            if name:
                nodes[name] = graph.call_function(operator.getitem, (made, index))


def _tupled(call: Any, value: Any) -> Any:
    """Branches and loops take tuples of operands."""
    return tuple(value) if isinstance(call, torch._ops.HigherOrderOperator) and isinstance(value, list) else value


def _body(body: Program, graph: torch.fx.Graph, root: torch.nn.Module) -> Any:
    inner = torch.fx.Graph()
    nodes = {name: inner.placeholder(name.replace(".", "_")) for name in body.inputs}
    holder = torch.nn.Module()
    _write(body, body.operations, inner, nodes, holder)
    results = tuple(nodes[name] for name in body.outputs)
    inner.output(results[0] if body.meta.get("single") else results)
    name = f"body_{sum(key.startswith('body_') for key in root._modules)}"
    root.add_module(name, torch.fx.GraphModule(holder, inner))
    return graph.get_attr(name)


class Applied(torch.nn.Module):
    """``module_of`` a program, called as the exported model was."""

    def __init__(self, exported: Exported, program: Program, tensors: Tensors) -> None:
        super().__init__()
        self.module = module_of(exported, program, tensors)
        self._given = [(name is not None, value) for name, value in exported.arguments]
        self._result: Any = _spec(exported.out_spec)
        self._keys: list[str] = json.loads(_spec(exported.in_spec)["children_spec"][1]["context"])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's result."""
        if set(kwargs) == set(self._keys):
            kwargs = {key: kwargs[key] for key in self._keys}
        leaves, _ = pytree.tree_flatten((args, kwargs))
        if len(leaves) != len(self._given):
            raise TargetError("the model", f"it takes {len(self._given)} values", f"it was called with {len(leaves)}")
        given = [leaf for leaf, (open_, _) in zip(leaves, self._given, strict=True) if open_]
        return _together(self._result, list(self.module(*given)))

    def flat(self, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The results in flattening order, from the tensors alone."""
        return tuple(self.module(*leaves))


def _spec(text: str) -> Any:
    return json.loads(text)[1] if text else None


def _together(spec: Any, leaves: list[Any]) -> Any:
    """Leaves in the tree of ``spec``; leaves are taken off the front."""
    if spec is None:
        return tuple(leaves)
    if spec["type"] is None:
        return leaves.pop(0)
    parts = [_together(child, leaves) for child in spec["children_spec"]]
    context = json.loads(spec["context"]) if spec["context"] else None
    kind = str(spec["type"]).rpartition(".")[2]
    if kind == "NoneType":
        return None
    if kind == "list":
        return parts
    if kind == "tuple" or not isinstance(context, list) or len(context) != len(parts):
        return tuple(parts)
    return dict(zip((_key(key) for key in context), parts, strict=True))


def _key(key: Any) -> Any:
    return key if isinstance(key, (str, int)) else json.dumps(key)
