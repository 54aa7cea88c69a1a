"""A few lines of Python that loop over arrays -> a ``Nest``; the lines are read, never run.

    for i in range(256):
        for j in range(256):
            s = 0
            for k in range(256):
                s += A[i, k] * B[k, j]
            C[i, j] = s

Reads come in the order in which Python evaluates them, the target of an augmented assignment last, then the write. Names
without subscripts are registers. ``range(a, b, step)`` with sums of loop variables, ``min(...)`` as a bound (``max(...)``
where the step is below 0), and ``N`` given as settings are known; anything else is refused with its line.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping, Sequence

from memfit.errors import NestError
from memfit.ir.nest import Access, ArraySpec, Loop, Nest, Sum, placed


def nest_from_source(
    source: str,
    arrays: Mapping[str, ArraySpec] | None = None,
    settings: Mapping[str, int] | None = None,
    name: str = "nest",
) -> Nest:
    """The nest that ``source`` writes down.

    Args:
        source: statements, or one function whose body they are.
        arrays: what each name is; None: float32, of the extents that the subscripts reach.
        settings: numbers for names, such as {"N": 256}; defaults of a function's arguments count too.

    Raises:
        NestError: no Python, a subscript or bound that is not affine, a statement that is neither loop nor assignment.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise NestError(name, f"it is no Python: {error}", "write for loops over range(...)") from error
    numbers = {}
    for setting, value in (settings or {}).items():
        try:
            numbers[setting] = operator.index(value)
        except TypeError as error:
            raise NestError(name, f"{setting} is {value!r}", "loops count in whole numbers") from error
    body: Sequence[ast.stmt] = tree.body
    for statement in body:
        if (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            target = statement.targets[0].id
            if isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, int):
                numbers.setdefault(target, statement.value.value)
    functions = [s for s in body if isinstance(s, ast.FunctionDef)]
    if functions:
        chosen = functions[-1]
        defaults = chosen.args.defaults
        for argument, default in zip(chosen.args.args[len(chosen.args.args) - len(defaults) :], defaults, strict=True):
            if isinstance(default, ast.Constant) and isinstance(default.value, int):
                numbers.setdefault(argument.arg, default.value)
        body = chosen.body
    reader = _Reader(name, numbers)
    parts = tuple(reader.statements(body, ()))
    if not any(True for _ in Nest(parts, {}, name).accesses()):
        raise NestError(name, "it accesses no array", "write subscripts such as A[i, k]")
    found = dict(arrays) if arrays is not None else reader.extents()
    return placed(Nest(parts, found, name))


class _Reader:
    def __init__(self, name: str, numbers: Mapping[str, int]) -> None:
        self.name, self.numbers = name, dict(numbers)
        self.reach: dict[str, list[int]] = {}
        self.ends: dict[str, tuple[int, int]] = {}

    def refuse(self, node: ast.AST, why: str, hint: str = "") -> NestError:
        return NestError(f"{self.name}, line {getattr(node, 'lineno', 0)}", why, hint)

    def statements(self, body: Sequence[ast.stmt], around: tuple[str, ...]) -> list[Loop | Access]:
        parts: list[Loop | Access] = []
        for statement in body:
            parts += self.statement(statement, around)
        return parts

    def statement(self, node: ast.stmt, around: tuple[str, ...]) -> list[Loop | Access]:
        if isinstance(node, ast.For):
            return [self.loop(node, around)]
        if isinstance(node, ast.AugAssign):
            reads = self.reads(node.value, around)
            if not isinstance(node.target, ast.Subscript):
                return reads
            array, subscripts = self.subscript(node.target, around)
            return [*reads, Access(array, False, subscripts), Access(array, True, subscripts)]
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            parts = self.reads(node.value, around)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Subscript):
                    parts.append(Access(self.subscript(target, around)[0], True, self.subscript(target, around)[1]))
                elif not isinstance(target, ast.Name):
                    raise self.refuse(target, "an assignment to neither a name nor a subscript", "write A[i, j] = ...")
            return parts
        if isinstance(node, ast.Expr):
            return self.reads(node.value, around)
        if isinstance(node, (ast.Pass, ast.FunctionDef, ast.Import, ast.ImportFrom)):
            return []
        raise self.refuse(node, f"a statement of the kind {type(node).__name__}", "loops and assignments are known")

    def loop(self, node: ast.For, around: tuple[str, ...]) -> Loop:
        if not isinstance(node.target, ast.Name):
            raise self.refuse(node, "a loop over more than one name", "write for i in range(...)")
        call = node.iter
        if not (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range" and call.args
        ):
            raise self.refuse(node, "a loop over something else than range(...)", "write for i in range(...)")
        start = self.affine(call.args[0], around) if len(call.args) > 1 else Sum()
        stop = call.args[1] if len(call.args) > 1 else call.args[0]
        step = self.affine(call.args[2], around) if len(call.args) > 2 else Sum(1)
        if step.parts or not step.constant:
            raise self.refuse(node, "a step that is no number but 0")
        nearest = "min" if step.constant > 0 else "max"
        several = isinstance(stop, ast.Call) and isinstance(stop.func, ast.Name) and stop.func.id == nearest
        bounds = stop.args if several and isinstance(stop, ast.Call) else [stop]
        stops = tuple(self.affine(bound, around) for bound in bounds)
        variable = node.target.id
        if step.constant > 0:
            low, high = self.bounds(start)[0], min(self.bounds(end)[1] for end in stops) - 1
        else:
            low, high = max(self.bounds(end)[0] for end in stops) + 1, self.bounds(start)[1]
        self.ends[variable] = (min(low, high), max(low, high))
        inner = self.statements(node.body, (*around, variable))
        return Loop(variable, start, stops, tuple(inner), step.constant)

    def bounds(self, total: Sum) -> tuple[int, int]:
        low = high = total.constant
        for name, coefficient in total.parts:
            first, last = (coefficient * end for end in self.ends[name])
            low, high = low + min(first, last), high + max(first, last)
        return low, high

    def reads(self, node: ast.expr, around: tuple[str, ...]) -> list[Loop | Access]:
        if isinstance(node, ast.Subscript):
            array, subscripts = self.subscript(node, around)
            return [Access(array, False, subscripts)]
        found: list[Loop | Access] = []
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                found += self.reads(child, around)
        return found

    def subscript(self, node: ast.Subscript, around: tuple[str, ...]) -> tuple[str, tuple[Sum, ...]]:
        parts: list[ast.expr] = []
        value: ast.expr = node
        while isinstance(value, ast.Subscript):
            inside = value.slice
            parts = [*(inside.elts if isinstance(inside, ast.Tuple) else [inside]), *parts]
            value = value.value
        if not isinstance(value, ast.Name):
            raise self.refuse(node, "a subscript of something without a name", "write A[i, j]")
        subscripts = tuple(self.affine(part, around) for part in parts)
        reach = self.reach.setdefault(value.id, [0] * len(subscripts))
        if len(reach) != len(subscripts):
            raise self.refuse(node, f"{value.id} has {len(reach)} subscripts elsewhere and {len(subscripts)} here")
        for number, total in enumerate(subscripts):
            reach[number] = max(reach[number], self.bounds(total)[1] + 1)
        return value.id, subscripts

    def affine(self, node: ast.expr, around: tuple[str, ...]) -> Sum:
        if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
            return Sum(node.value)
        if isinstance(node, ast.Name):
            if node.id in around:
                return Sum.of(node.id)
            if node.id in self.numbers:
                return Sum(self.numbers[node.id])
            raise self.refuse(node, f"{node.id} is neither a loop around nor a number", f"give --set {node.id}=NUMBER")
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self.affine(node.operand, around).times(-1)
        if isinstance(node, ast.BinOp):
            left, right = self.affine(node.left, around), self.affine(node.right, around)
            if isinstance(node.op, (ast.Add, ast.Sub)):
                return left.plus(right, 1 if isinstance(node.op, ast.Add) else -1)
            if isinstance(node.op, ast.Mult) and not (left.parts and right.parts):
                return right.times(left.constant) if not left.parts else left.times(right.constant)
            if isinstance(node.op, ast.FloorDiv) and not left.parts and not right.parts and right.constant:
                return Sum(left.constant // right.constant)
        raise self.refuse(
            node, f"{ast.unparse(node)} is not affine (a sum of loop variables times numbers)",
            "record the addresses and give them as a trace (.npy) instead",
        )  # fmt: skip

    def extents(self) -> dict[str, ArraySpec]:
        for array, reach in self.reach.items():
            if min(reach) <= 0:
                raise NestError(self.name, f"the loops around {array} never run", "use positive extents")
        return {array: ArraySpec(tuple(reach)) for array, reach in self.reach.items()}
