"""Writing in place taken out of an exported program for the passes, and put in again where a value dies.

    y = relu_(x)     ->  y = relu(x), and who reads x later reads y        passes may merge and move it
    y = relu(x)      ->  y = relu_(x)     where x dies here, is nobody's view, and y has its type: one buffer less

The first is possible where no other name of x's bytes is read later. The second is bit-identical: an elementwise kernel reads
each element before it writes it. Cost: O(operations + reads).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from memfit.frameworks.torch.exported_arguments import Ref
from memfit.frameworks.torch.exported_schema import callable_of, short_name
from memfit.ir.ops.table import facts
from memfit.ir.program import Operation, Program


class _Owners:
    """Which value owns the bytes that a name stands for; views share their source's."""

    def __init__(self, program: Program) -> None:
        self.of = {name: name for name in (*program.inputs, *program.constants)}
        for operation in program.operations:
            what = facts(operation)
            shared = what.view if 0 <= what.view < len(operation.inputs) else -1
            passed: Mapping[int, int] = dict(operation.attribute("shares", ()))
            for index, name in enumerate(operation.outputs):
                if name:
                    source = passed.get(index, shared if index == 0 else -1)
                    self.of[name] = self.of.get(operation.inputs[source], "") if source >= 0 else name
        self.last: dict[str, int] = {}  # owner -> the last operation that reads its bytes
        self.names: dict[str, list[str]] = {}
        for name, owner in self.of.items():
            self.names.setdefault(owner, []).append(name)
            for reader in program.readers.get(name, ()):
                self.last[owner] = max(self.last.get(owner, -1), reader)
        self.kept = {self.of.get(name, "") for name in program.outputs}


def functional(program: Program) -> tuple[Program, str]:
    """(the program without operations that write in place, "") or (itself, why that cannot be done)."""
    owners = _Owners(program)
    made_at = {name: index for index, op in enumerate(program.operations) for name in op.outputs if name}
    done: list[Operation] = []
    now: dict[str, str] = {}
    for index, operation in enumerate(program.operations):
        if any(functional(body)[0] is not body or functional(body)[1] for _, body in operation.bodies):
            return program, "a body of a branch or loop writes in place"
        inputs = tuple(_at(now, name) for name in operation.inputs)
        changed = replace(operation, inputs=inputs) if inputs != operation.inputs else operation
        if operation.attribute("memory") == "writes":
            why = _why_not(program, owners, made_at, index)
            target = _other_form(operation, "")
            if why or target is None:
                return program, why or f"{operation.kind} has no form that writes elsewhere"
            changed = _as(changed, target, "pure")
            now[operation.inputs[0]] = operation.outputs[0]
        done.append(changed)
    return (replace(program, operations=tuple(done)) if now else program), ""


def _why_not(program: Program, owners: _Owners, made_at: Mapping[str, int], index: int) -> str:
    """Why an operation that writes in place cannot write elsewhere instead; "" where it can."""
    operation = program.operations[index]
    if len(operation.outputs) != 1 or operation.attribute("of") != 0 or not operation.outputs[0]:
        return f"{operation.kind} writes over several values"
    source = operation.inputs[0]
    owner = owners.of[source]
    if owner in program.inputs or owner in program.constants:
        return f"it writes over {owner!r}, which outlives the run"
    later = [
        name for name in owners.names[owner]
        if name != source and made_at.get(name, -1) < index
        and (name in program.outputs or any(reader > index for reader in program.readers.get(name, ())))
    ]  # fmt: skip
    if later or source in program.outputs:
        return f"it writes over {source!r} while {(later or [source])[0]!r}, the same bytes, is read later"
    return ""


def _at(now: Mapping[str, str], name: str) -> str:
    while name in now:
        name = now[name]
    return name


def in_place_where_dying(program: Program) -> Program:
    """``program`` with elementwise operations that write over an input which dies there."""
    owners = _Owners(program)
    stay = {*program.inputs, *program.constants}
    operations = list(program.operations)
    taken: set[str] = set()
    for index, operation in enumerate(operations):
        if operation.attribute("memory") != "pure" or operation.bodies or len(operation.outputs) != 1:
            continue
        if (
            not operation.inputs
            or operation.attribute("positional")[:1] != (Ref(0),)
            or operation.inputs.count(operation.inputs[0]) > 1
        ):
            continue
        source, output = operation.inputs[0], operation.outputs[0]
        owner = owners.of.get(source, "")
        if source != owner or owner in stay or owner in owners.kept or owners.last.get(owner) != index:
            continue
        if any(owners.of.get(name) == owner for name in operation.inputs[1:]) or owner in taken:
            continue
        if program.types[source] != program.types[output] or not program.types[source].known:
            continue
        call = callable_of(operation.attribute("target"))
        if not isinstance(call, torch._ops.OpOverload) or torch.Tag.pointwise not in call.tags:
            continue
        target = _other_form(operation, "_")
        if target is not None:
            operations[index] = _as(operation, target, "writes")
            taken.add(owner)
            # what is written over from here on goes by the new name, and is owned as the old one was
            for name in owners.names.get(owners.of[output], [output]):
                owners.of[name] = output
    return replace(program, operations=tuple(operations)) if taken else program


def _other_form(operation: Operation, ending: str) -> str | None:
    """The target of the same operator that writes in place ("_") or elsewhere (""), None where there is none."""
    target: str = operation.attribute("target")
    front, _, overload = target.rpartition(".")
    if not target.startswith("torch.ops.aten."):
        return None
    other = f"{front.removesuffix('_')}{ending}.{overload}"
    call = callable_of(other)
    before = callable_of(target)
    if call is None or before is None:
        return None
    names = [[argument.name for argument in form._schema.arguments] for form in (before, call)]
    return other if names[0] == names[1] or operation.kind.startswith("aten.copy_") else None


def _as(operation: Operation, target: str, memory: str) -> Operation:
    changed = {"target": target, "memory": memory, "of": 0}
    attributes = tuple((key, changed.get(key, value)) for key, value in operation.attributes)
    return replace(operation, kind=f"aten.{short_name(target)}", attributes=attributes)
