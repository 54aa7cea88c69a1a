"""Symbolic sizes in a ``.pt2`` file -> sizes of the intermediate form, parsed, never evaluated.

    Mul(Integer(2), Symbol('s0', positive=True, integer=True))   ->   2*batch

The file keeps symbols and not the names that the model's author gave them: the first axis of the first input that has it open
is ``batch``, another one is named after its input (``ids_1``). A form that is not known becomes a dimension of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from memfit.ir.dimension import Size, ceil_divide, largest, product, smallest, symbol


class Sizes:
    """Parses sizes. ``named``: symbol of the file -> name; ``hints``: name -> the number that the exporter saw."""

    def __init__(self) -> None:
        self.named: dict[str, str] = {}
        self.hints: dict[str, int] = {}

    def size(self, given: Mapping[str, Any]) -> Size:
        """A size of the file: ``{"as_int": 8}`` or ``{"as_expr": {...}}``."""
        if given.get("as_int") is not None:
            return int(given["as_int"])
        text = given["as_expr"]["expr_str"]
        return self.parsed(text)

    def hint(self, given: Mapping[str, Any]) -> int:
        """The number that the exporter saw; 2 where it saw none."""
        if given.get("as_int") is not None:
            return int(given["as_int"])
        found = given["as_expr"].get("hint")
        return int(found["as_int"]) if found and found.get("as_int") is not None else 2

    def name_axis(self, given: Mapping[str, Any], wanted: str) -> None:
        """Name the symbol of an input's open axis, where the axis is one and has no name yet."""
        if given.get("as_int") is not None:
            return
        node = ast.parse(given["as_expr"]["expr_str"], mode="eval").body
        if not _is_symbol(node) or (key := _text(node)) in self.named:
            return
        name = wanted
        while name in self.named.values():
            name += "_"
        self.named[key] = name
        self.hints[name] = self.hint(given)

    def parsed(self, text: str) -> Size:
        """A size as text; an opaque dimension where it has a form that is not known."""
        try:
            return self._parsed(ast.parse(text, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, ZeroDivisionError):
            return symbol(self.named.setdefault(text, f"unknown_{len(self.named)}"))

    def _parsed(self, node: ast.expr) -> Size:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return 0 - self._parsed(node.operand)
        if not isinstance(node, ast.Call):
            raise ValueError(ast.dump(node))
        if _is_symbol(node):
            text = _text(node)
            return symbol(self.named.get(text, text))
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        whole = node.args[0] if len(node.args) == 1 else None
        if name in ("CeilToInt", "FloorToInt", "TruncToInt") and isinstance(whole, ast.Call):
            inner = whole.func.id if isinstance(whole.func, ast.Name) else ""
            if inner in ("IntTrueDiv", "FloatTrueDiv") and len(whole.args) == 2:
                above, below = (self._parsed(argument) for argument in whole.args)
                return ceil_divide(above, below) if name == "CeilToInt" else above // below
        if name not in _FORMS:
            raise ValueError(name)
        return _FORMS[name]([self._parsed(argument) for argument in node.args])


def _power(given: list[Size]) -> Size:
    base, power = given
    if not isinstance(power, int) or not 0 <= power <= 8:
        raise ValueError("a power that is no small number")
    return product([base] * power)


_FORMS: dict[str, Callable[[list[Size]], Size]] = {
    "Integer": lambda given: given[0], "Add": lambda given: sum(given, start=0), "Mul": product, "Pow": _power,
    "Max": lambda given: largest(*given), "Min": lambda given: smallest(*given),
    "FloorDiv": lambda given: given[0] // given[1], "CleanDiv": lambda given: given[0] // given[1],
    "Mod": lambda given: given[0] % given[1], "PythonMod": lambda given: given[0] % given[1],
    "ToFloat": lambda given: given[0], "Zero": lambda given: 0, "One": lambda given: 1,
}  # fmt: skip


def _is_symbol(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Symbol" and len(node.args) == 1
        and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    )  # fmt: skip


def _text(node: ast.expr) -> str:
    assert isinstance(node, ast.Call)
    argument = node.args[0]
    assert isinstance(argument, ast.Constant)
    return str(argument.value)
