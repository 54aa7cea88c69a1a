"""Sizes of tensors before they are numbers: integer polynomials over named dimensions, with // % min max as opaque parts.

    batch   2*seq + 1   seq//2   max(seq, 8)   batch*seq*768

A ``Size`` is an int where it is known, else an ``Expression`` in a normal form, so that equal text means equal size and a
difference that cancels becomes a number. Exact division of polynomials serves ``reshape(-1)``. What stays inside // % min
max is compared by its form only: two of them may be equal and not be seen to be. Every symbol stands for an integer >= 0.

Cost: each operation is O(terms of both); shapes have one to three terms.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TypeAlias, Union

Size: TypeAlias = Union[int, "Expression"]
Shape: TypeAlias = tuple[Size, ...]


class UnboundError(LookupError):
    """A dimension that has no number yet. ``names``: which."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(sorted(set(names)))
        super().__init__(", ".join(self.names))


@dataclass(frozen=True, slots=True)
class Call:
    """An opaque part: ``name`` is one of // % min max, ``arguments`` are sizes."""

    name: str
    arguments: tuple[Size, ...]
    text: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.name in ("min", "max"):
            text = f"{self.name}({', '.join(map(str, self.arguments))})"
        else:
            left, right = self.arguments
            text = f"({left}){self.name}({right})" if isinstance(right, Expression) else f"({left}){self.name}{right}"
        object.__setattr__(self, "text", text)

    def __str__(self) -> str:
        return self.text

    def __hash__(self) -> int:
        return hash(self.text)


Atom: TypeAlias = str | Call
Monomial: TypeAlias = tuple[Atom, ...]  # sorted by text, repeated for powers


@dataclass(frozen=True, slots=True)
class Expression:
    """A sum of integer multiples of products of atoms; never a plain number. Made by arithmetic and ``symbol``."""

    terms: tuple[tuple[Monomial, int], ...]
    hashed: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hashed", hash(self.terms))

    def __hash__(self) -> int:
        return self.hashed

    def __str__(self) -> str:
        text = ""
        for monomial, factor in self.terms:
            sign = "-" if factor < 0 else "+" if text else ""
            alone = factor == 1 and len(monomial) == 1
            parts = ([str(abs(factor))] if abs(factor) != 1 or not monomial else []) + [
                f"({atom})" if isinstance(atom, Call) and not alone else str(atom) for atom in monomial
            ]
            text += (f" {sign} " if text else sign) + "*".join(parts)
        return text

    def __repr__(self) -> str:
        return f"<{self}>"

    def __add__(self, other: Size) -> Size:
        total = dict(self.terms)
        for monomial, factor in _terms(other):
            total[monomial] = total.get(monomial, 0) + factor
        return _size(total)

    __radd__ = __add__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + other * -1

    def __rsub__(self, other: Size) -> Size:
        return other + self * -1

    def __mul__(self, other: Size) -> Size:
        total: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in _terms(other):
                key = tuple(sorted((*left, *right), key=str))
                total[key] = total.get(key, 0) + a * b
        return _size(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        exact = divide(self, other)
        return _call("//", (self, other)) if exact is None else exact

    def __rfloordiv__(self, other: int) -> Size:
        return _call("//", (other, self))

    def __mod__(self, other: Size) -> Size:
        return _call("%", (self, other)) if divide(self, other) is None else 0

    def __rmod__(self, other: int) -> Size:
        return _call("%", (other, self))


def symbol(name: str) -> Expression:
    """The dimension called ``name``."""
    return Expression((((name,), 1),))


def smallest(*sizes: Size) -> Size:
    """min, symbolic where it must be."""
    return _extreme("min", sizes)


def largest(*sizes: Size) -> Size:
    """max, symbolic where it must be."""
    return _extreme("max", sizes)


def product(sizes: Iterable[Size]) -> Size:
    """All sizes multiplied; 1 for none."""
    return reduce(operator.mul, sizes, 1)


def ceil_divide(a: Size, b: Size) -> Size:
    """a / b rounded up, for b > 0."""
    exact = divide(a, b)
    return (a + b - 1) // b if exact is None else exact


def divide(a: Size, b: Size) -> Size | None:
    """The exact quotient as a polynomial, or None where there is none."""
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a % b == 0 else None
    if isinstance(a, int) and a == 0:
        return 0
    lead, factor = _terms(b)[0]
    rest: Size = a
    quotient: Size = 0
    for _ in range(len(_terms(a)) + 4):  # each round removes the leading term, or there is no exact quotient
        if rest == 0:
            return quotient
        monomial, number = _terms(rest)[0]
        left = _without(monomial, lead)
        if left is None or number % factor:
            return None
        step = _size({left: number // factor})
        quotient = quotient + step
        rest = rest - step * b
    return None


def symbols(sizes: Iterable[Size]) -> frozenset[str]:
    """Names of all dimensions inside."""
    names: set[str] = set()
    for size in sizes:
        if isinstance(size, Expression):
            for monomial, _ in size.terms:
                for atom in monomial:
                    names |= {atom} if isinstance(atom, str) else symbols(atom.arguments)
    return frozenset(names)


def bind(size: Size, numbers: Mapping[str, Size]) -> Size:
    """``size`` with dimensions replaced; those that ``numbers`` does not name stay."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, factor in size.terms:
        part: Size = factor
        for atom in monomial:
            part = part * (_bound_call(atom, numbers) if isinstance(atom, Call) else numbers.get(atom, symbol(atom)))
        total = total + part
    return total


def number(size: Size, numbers: Mapping[str, int]) -> int:
    """``size`` as an int.

    Raises:
        UnboundError: a dimension that ``numbers`` does not name.
    """
    value = bind(size, numbers)
    if isinstance(value, Expression):
        raise UnboundError(symbols([value]))
    return value


def parse_size(text: str) -> Size:
    """What ``str`` of a size wrote, and what exporters write; a symbol of that very name where it is no arithmetic."""
    try:
        return _parsed(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, ZeroDivisionError):
        return symbol(text.strip() or "unknown")


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
              ast.Mod: operator.mod}  # fmt: skip


def _parsed(node: ast.expr) -> Size:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return symbol(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return 0 - _parsed(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _parsed(node.left), _parsed(node.right)
        if type(node.op) in _OPERATORS:
            result: Size = _OPERATORS[type(node.op)](left, right)
            return result
        if isinstance(node.op, ast.Pow) and isinstance(right, int) and 0 <= right <= 8:
            return product([left] * right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args and not node.keywords:
        arguments = [_parsed(argument) for argument in node.args]
        if node.func.id.lower() in ("min", "max"):
            return _extreme(node.func.id.lower(), arguments)
        if node.func.id in ("floor", "floordiv", "FloorDiv") and len(arguments) == 2:
            return arguments[0] // arguments[1]
        if node.func.id in ("mod", "Mod") and len(arguments) == 2:
            return arguments[0] % arguments[1]
    raise ValueError(ast.dump(node))


def _terms(size: Size) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Expression) else ((((), size),) if size else ())


def _size(terms: Mapping[Monomial, int]) -> Size:
    kept = {monomial: factor for monomial, factor in terms.items() if factor}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    # The longest products first, then by text: the order that exact division needs, and a fixed text.
    return Expression(tuple(sorted(kept.items(), key=lambda t: (-len(t[0]), [str(a) for a in t[0]]))))


def _without(monomial: Monomial, part: Monomial) -> Monomial | None:
    left = list(monomial)
    for atom in part:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _call(name: str, arguments: tuple[Size, ...]) -> Size:
    return Expression((((Call(name, arguments),), 1),))


def _bound_call(call: Call, numbers: Mapping[str, Size]) -> Size:
    arguments = [bind(argument, numbers) for argument in call.arguments]
    if call.name in ("min", "max"):
        return _extreme(call.name, arguments)
    left, right = arguments
    if right == 0:
        return 0
    return left // right if call.name == "//" else left % right


def _extreme(name: str, sizes: Iterable[Size]) -> Size:
    unique: list[Size] = []
    for size in sizes:
        if size not in unique:
            unique.append(size)
    numbers = [size for size in unique if isinstance(size, int)]
    rest = sorted((size for size in unique if isinstance(size, Expression)), key=str)
    best = (min if name == "min" else max)(numbers) if numbers else None
    if best is not None and rest and ((name == "max" and best <= 0) or (name == "min" and best <= 0)):
        if name == "min":
            return best
        best = None  # no dimension is below zero
    whole: list[Size] = [*rest, *([] if best is None else [best])]
    return whole[0] if len(whole) == 1 else _call(name, tuple(whole))
