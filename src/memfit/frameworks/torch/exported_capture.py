"""A ``.pt2`` file -> Program: the graph of ``torch.export`` with its symbols, weights as constants by reference.

    aten.linear.default, ...          one operation each; its arguments are the attributes ``positional`` and ``keywords``
    sizes (``sym_size``, 2*s)         operations too, with whole numbers as values; sizes of tensors are expressions
    no_grad blocks                    inlined: a program is run without gradients
    cond, while_loop, autocast        operations with bodies

What an operator does to memory is noted as ``memory`` and ``of`` (``ir.ops.aten``). Names inside a body begin with the
body's. Nothing of the file is run or unpickled (``exported_file``).

Cost: O(operations); the JSON of a GPT-2 takes 0.1 s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from memfit.frameworks.torch.exported_arguments import Reader, only_one
from memfit.frameworks.torch.exported_file import DAMAGE, DTYPES, ExportedFile, Weight
from memfit.frameworks.torch.exported_schema import CHECKS, callable_of, memory_of, short_name
from memfit.frameworks.torch.exported_sizes import Sizes
from memfit.ir.dimension import Size, product, symbols
from memfit.ir.ops.table import facts
from memfit.ir.program import Constant, Operation, Program, Type
from memfit.ir.verify import verify
from memfit.machine.own_code import is_users_file, place

_NUMBERS = {"as_sym_int": "int64", "as_sym_bool": "bool", "as_sym_float": "float64"}
_INLINED = "torch.ops.higher_order.wrap_with_set_grad_enabled"
_COUNTING = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive")
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in')


@dataclass(frozen=True)
class Exported:
    """``program``; ``file``; ``weights``: by reference; ``names``: constant -> qualified name.

    ``results``: each result as the name of an output of the program, or (None, the value that it always is).
    ``in_spec``, ``out_spec``: the trees of arguments and result as the file writes them.
    ``hints``: numbers of the dimensions that the exporter saw.
    """

    program: Program
    file: ExportedFile
    weights: dict[str, Weight]
    names: dict[str, str]
    results: tuple[tuple[str | None, Any], ...]
    arguments: tuple[tuple[str | None, Any], ...]
    in_spec: str
    out_spec: str
    hints: dict[str, int]


def captured_file(path: str | Path) -> Exported:
    """The Program of a ``.pt2`` file and what ``apply`` needs.

    Raises:
        TargetError: the file cannot be used, is damaged, or reading it would run what is inside.
    """
    file = ExportedFile(path)
    try:
        return _captured(file)
    except DAMAGE as error:
        raise file.damaged(error) from error


def program_of_file(path: str | Path) -> Program:
    """The Program of a ``.pt2`` file. Errors: as ``captured_file``."""
    return captured_file(path).program


def _captured(file: ExportedFile) -> Exported:
    module = file.model["graph_module"]
    graph, signature = module["graph"], module["signature"]
    sizes = Sizes()
    specs = [only_one(spec) for spec in signature["input_specs"]]
    given = [_user_input(spec) for kind, spec in specs if kind in ("user_input", "constant_input")]
    _name_axes(sizes, graph, [name for name, _ in given if name is not None])
    weights: dict[str, Weight] = {}
    names: dict[str, str] = {}
    constants: dict[str, Constant] = {}
    writer = _Writer(sizes, file)
    level = _Level(writer, graph, "")
    for kind, spec in specs:
        if kind in ("user_input", "constant_input"):
            continue
        if kind not in ("parameter", "buffer", "tensor_constant"):
            raise file.refusal(f"it is given a {kind.replace('_', ' ')}, which is no tensor", "export it without")
        name = spec["arg"]["name"]
        qualified = spec.get("parameter_name") or spec.get("buffer_name") or spec["tensor_constant_name"]
        weight = file.weights[qualified]
        made = Type(_dtype(weight.dtype), weight.shape)
        constants[name] = Constant(made, repr(weight.key))
        weights[constants[name].reference] = weight
        level.types[name], names[name] = made, qualified
    inputs = tuple(name for name, _ in given if name is not None)
    for name in inputs:
        level.types[name] = level.type_of(name)
    level.run(graph["nodes"])
    results = []
    for spec in signature["output_specs"]:
        kind, value = only_one(spec)
        if kind != "user_output":
            raise file.refusal(f"it gives back a {kind.replace('_', ' ')}", "export the model for inference")
        results.append(level.result(value["arg"]))
    call = next(row["signature"] for row in module["module_call_graph"] if row["fqn"] == "")
    outputs = tuple(dict.fromkeys(name for name, _ in results if name is not None))
    meta = {"bounds": _bounds(file, sizes, writer), "labels": names}
    program = Program(inputs, outputs, tuple(level.operations), level.types, constants, file.path.stem, meta)
    verify(program, where=file.name)
    return Exported(
        program, file, weights, names, tuple(results), tuple(given), call["in_spec"], call["out_spec"], sizes.hints
    )


def _user_input(spec: Mapping[str, Any]) -> tuple[str | None, Any]:
    """(name, None) of an input, (None, value) of an argument that was fixed when the model was exported."""
    if "value" in spec:
        kind, value = only_one(spec["value"])
        return None, None if kind == "as_none" else value
    kind, value = only_one(spec["arg"])
    if kind == "as_tensor":
        return str(value["name"]), None
    if kind in _NUMBERS and value.get("as_name"):
        return str(value["as_name"]), None
    if kind in _NUMBERS:
        return None, only_one(value)[1]
    return None, None if kind == "as_none" else value


def _name_axes(sizes: Sizes, graph: Mapping[str, Any], inputs: list[str]) -> None:
    tensors = [(name, graph["tensor_values"][name]["sizes"]) for name in inputs if name in graph["tensor_values"]]
    for _, shape in tensors:
        if shape:
            sizes.name_axis(shape[0], "batch")
            if "batch" in sizes.named.values():
                break
    for name, shape in tensors:
        for axis, size in enumerate(shape):
            sizes.name_axis(size, f"{name}_{axis}")
    for name in inputs:
        if name in graph["sym_int_values"]:
            sizes.name_axis(graph["sym_int_values"][name], name)


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _bounds(file: ExportedFile, sizes: Sizes, writer: _Writer) -> dict[str, Size]:
    """Upper bounds of dimensions that depend on data: from operators that count, else from the file."""
    found: dict[str, Size] = dict(writer.bounds)
    for name, row in file.model["range_constraints"].items():
        if row["max_val"] is not None and name not in sizes.named and name.startswith("u"):
            found.setdefault(name, int(row["max_val"]))
    return found


class _Writer:
    """What the levels of one file share."""

    def __init__(self, sizes: Sizes, file: ExportedFile) -> None:
        self.sizes, self.file = sizes, file
        self.bounds: dict[str, Size] = {}


class _Level:
    """One graph while it is written; names of a body begin with ``prefix``."""

    def __init__(self, writer: _Writer, graph: Mapping[str, Any], prefix: str) -> None:
        self.writer, self.graph, self.prefix = writer, graph, prefix
        self.types: dict[str, Type] = {}
        self.operations: list[Operation] = []
        self.named: dict[str, str] = {}  # of a graph that is inlined: its name -> the name here
        self.hollow: dict[str, Any] = {}

    def name(self, name: str) -> str:
        """A name of the file in the Program."""
        return self.named.get(name, self.prefix + name)

    def type_of(self, name: str) -> Type:
        """The type of a value of this graph."""
        tensors = self.graph["tensor_values"]
        if name not in tensors:
            for kind, key in (
                ("int64", "sym_int_values"),
                ("bool", "sym_bool_values"),
                ("float64", "sym_float_values"),
            ):
                if name in self.graph.get(key, {}):
                    return Type(kind, ())
            raise KeyError(name)
        meta = tensors[name]
        return Type(_dtype(DTYPES[meta["dtype"]]), tuple(self.writer.sizes.size(size) for size in meta["sizes"]))

    def without_memory(self, name: str) -> Any:
        """A value as a tensor on ``meta`` at the sizes that the exporter saw, or as a number."""
        hint = self.writer.sizes.hint
        if name in self.graph["tensor_values"]:
            meta = self.graph["tensor_values"][name]
            shape, strides = [hint(size) for size in meta["sizes"]], [hint(stride) for stride in meta["strides"]]
            return torch.empty_strided(shape, strides, dtype=DTYPES[meta["dtype"]], device="meta")
        if name in self.graph["sym_int_values"]:
            return hint(self.graph["sym_int_values"][name])
        return True if name in self.graph.get("sym_bool_values", {}) else 1.0

    def run(self, nodes: list[Mapping[str, Any]]) -> None:
        """Append the operations of every node."""
        for node in nodes:
            if node["target"] == _INLINED:
                self._inline(node)
            elif node["target"] not in CHECKS:
                self._operation(node)

    def result(self, argument: Mapping[str, Any]) -> tuple[str | None, Any]:
        """(name, None) of a graph's output, or (None, the value that it always is)."""
        kind, value = only_one(argument)
        if kind == "as_tensor":
            return self.name(value["name"]), None
        if kind in _NUMBERS:
            inner, found = only_one(value)
            return (self.name(found), None) if inner == "as_name" else (None, found)
        if kind in ("as_none", "as_int", "as_float", "as_bool", "as_string"):
            return None, None if kind == "as_none" else value
        raise ValueError(f"an output of the kind {kind}")

    def _inline(self, node: Mapping[str, Any]) -> None:
        graph = node["inputs"][1]["arg"]["as_graph"]["graph"]
        inner = _Level(self.writer, graph, f"{self.prefix}{node['name']}.")
        reader = Reader(self.name)
        for given, row in zip(graph["inputs"], node["inputs"][2:], strict=True):
            reader.read(row["arg"])
            inner.named[_only_name(given)] = reader.inputs[-1]
        inner.run(graph["nodes"])
        self.operations += inner.operations
        self.types.update(inner.types)
        outputs = [name for row in node["outputs"] for name in _names(row)]
        for name, made in zip(outputs, graph["outputs"], strict=True):
            source, value = inner.result(made)
            if source is None:
                raise ValueError(f"a block gives back {value!r}")
            self.named[name] = source

    def _operation(self, node: Mapping[str, Any]) -> None:
        reader = Reader(self.name)
        raw: list[str] = []
        positional, keywords = [], []
        for row in node["inputs"]:
            template = reader.read(row["arg"])
            raw += list(_names(row["arg"]))
            if row.get("kind") == 2:
                keywords.append((row["name"], template))
            else:
                positional.append(template)
        target = node["target"]
        call = callable_of(target)
        hollow = [self.without_memory(name) for name in raw]
        memory, of = memory_of(call, tuple(positional), tuple(keywords), hollow)
        outputs = [name for row in node["outputs"] for name in _names(row)]
        made = [self.name(name) if name else "" for name in outputs]
        for name in outputs:
            if name:
                self.types[self.name(name)] = self.type_of(name)
        attributes = [("keywords", tuple(keywords)), ("positional", tuple(positional)), ("target", target)]
        attributes.append(("single", _is_single(node)))
        if memory:
            attributes += [("memory", memory), ("of", of)]
        if memory == "view" and len(outputs) > 1:
            attributes.append(("shares", tuple((index, of) for index in range(1, len(outputs)))))
        bodies = tuple(
            (f"{index}", self._body(name, graph, target)) for index, (name, graph) in enumerate(reader.bodies)
        )
        operation = Operation(
            f"aten.{short_name(target)}", tuple(reader.inputs), tuple(made),
            tuple(sorted(attributes, key=lambda pair: pair[0])), bodies, _label(node.get("metadata", {})),
        )  # fmt: skip
        self.operations.append(operation)
        self._note_bound(operation)

    def _note_bound(self, operation: Operation) -> None:
        if operation.kind.split(".")[1] in _COUNTING and operation.outputs:
            given = self.types.get(operation.inputs[0])
            for name in symbols(self.types[operation.outputs[0]].shape or ()):
                if name.startswith("u") and given is not None and given.shape is not None:
                    self.writer.bounds.setdefault(name, product(given.shape))

    def _body(self, name: str, graph: Mapping[str, Any], target: str) -> Program:
        level = _Level(self.writer, graph, f"{self.prefix}{name}.")
        given = [_only_name(row) for row in graph["inputs"]]
        for each in given:
            level.types[level.name(each)] = level.type_of(each)
        level.run(graph["nodes"])
        results = [level.result(row) for row in graph["outputs"]]
        if any(source is None for source, _ in results):
            raise ValueError(f"the body {name} gives back what is no tensor")
        inputs = tuple(level.name(each) for each in given)
        state = "while_loop" in target and "body" in name
        meta = {"outside": frozenset(() if state else inputs), "single": bool(graph.get("is_single_tensor_return"))}
        outputs = tuple(str(source) for source, _ in results)
        return Program(inputs, outputs, tuple(level.operations), level.types, {}, name, meta)


def _names(argument: Mapping[str, Any]) -> list[str]:
    """Names of the values that an argument of a call, or a result, stands for; '' where one is left out."""
    kind, value = only_one(argument)
    if kind == "as_tensor":
        return [value["name"]]
    if kind == "as_tensors":
        return [item["name"] for item in value]
    if kind in _NUMBERS:
        inner, found = only_one(value)
        return [found] if inner == "as_name" else []
    if kind in tuple(name + "s" for name in _NUMBERS):
        return [found for inner, found in map(only_one, value) if inner == "as_name"]
    if kind == "as_optional_tensor":
        return [] if "as_none" in value else [value["as_tensor"]["name"]]
    if kind == "as_optional_tensors":
        return [found["name"] for inner, found in map(only_one, value) if inner == "as_tensor"]
    if kind == "as_nested_tensors":
        return [item["name"] for items in value for item in items]
    return []


def _only_name(argument: Mapping[str, Any]) -> str:
    (name,) = _names(argument)
    return name


def _is_single(node: Mapping[str, Any]) -> bool:
    """Whether the call gives one value, not a list or tuple of values."""
    if node["target"].startswith("torch.ops.higher_order."):
        return bool(node.get("is_hop_single_tensor_return"))
    return len(node["outputs"]) == 1 and "as_tensors" not in node["outputs"][0]


def _label(metadata: Mapping[str, str]) -> str:
    """``module @ file:line`` of the user's own line."""
    stack = metadata.get("nn_module_stack", "").rpartition(";")[2].split(",")
    module = stack[1] if len(stack) > 2 else ""
    frames = _FRAME.findall(metadata.get("stack_trace", ""))
    own = [frame for frame in frames if is_users_file(frame[0])] or frames[-1:]
    return f"{module} @ {place(own[-1][0], int(own[-1][1]))}" if own else module


def writes_what_stays(program: Program) -> str:
    """The constant or input that the program writes over, '' for none: it then is not its outputs alone."""
    source = {name: name for name in (*program.inputs, *program.constants)}
    for operation in program.operations:
        what = facts(operation)
        if what.view < 0 or what.view >= len(operation.inputs):
            continue
        at = source.get(operation.inputs[what.view], "")
        if at and not what.pure:
            return at
        if at:
            source.update((name, at) for name in operation.outputs if name)
    return ""
