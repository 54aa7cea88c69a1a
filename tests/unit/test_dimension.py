"""Symbolic sizes against plain integers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memfit.ir import dimension as dim
from memfit.ir.dimension import Expression, Size

NAMES = ("b", "s")
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "//": lambda a, b: a // b,
              "%": lambda a, b: a % b, "max": dim.largest, "min": dim.smallest}  # fmt: skip

trees = st.recursive(
    st.one_of(st.integers(-4, 9), st.sampled_from(NAMES)),
    lambda inner: st.tuples(st.sampled_from(sorted(OPERATIONS)), inner, inner),
    max_leaves=8,
)


def build(tree: object, leaf: dict[str, Size]) -> Size:
    if isinstance(tree, tuple):
        name, left, right = tree
        a, b = build(left, leaf), build(right, leaf)
        if name in ("//", "%") and isinstance(b, int) and b == 0:
            return 0
        return OPERATIONS[name](a, b)
    return leaf[tree] if isinstance(tree, str) else tree


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees, st.integers(1, 7), st.integers(1, 9))
def test_a_symbolic_size_becomes_what_the_numbers_give(tree: object, b: int, s: int) -> None:
    numbers = {"b": b, "s": s}
    try:
        expected = build(tree, numbers)
    except ZeroDivisionError:
        return
    try:
        symbolic = build(tree, {name: dim.symbol(name) for name in NAMES})
    except ZeroDivisionError:
        return
    value = dim.number(symbolic, numbers)
    assert value == expected or _divides_by_zero(tree, numbers)
    again = dim.parse_size(str(symbolic))
    assert dim.number(again, numbers) == value


def _divides_by_zero(tree: object, numbers: dict[str, int]) -> bool:
    """Where a divisor is 0 there is no right answer."""
    if not isinstance(tree, tuple):
        return False
    name, left, right = tree
    inner = _divides_by_zero(left, numbers) or _divides_by_zero(right, numbers)
    return inner or (name in ("//", "%") and build(right, numbers) == 0) or _negative_max(tree, numbers)


def _negative_max(tree: object, numbers: dict[str, int]) -> bool:
    """min and max take every symbolic part to be >= 0, which sizes are and random trees are not."""
    name, left, right = tree  # type: ignore[misc]
    return name in ("min", "max") and (build(left, numbers) < 0 or build(right, numbers) < 0)


def test_equal_sizes_have_equal_text_and_differences_cancel() -> None:
    b, s = dim.symbol("b"), dim.symbol("s")
    assert (b + s) * 2 - s - s == 2 * b
    assert str(2 * s + b * s) == str(b * s + s * 2) == "b*s + 2*s"
    assert b - b == 0


def test_exact_division_finds_the_polynomial() -> None:
    b, s = dim.symbol("b"), dim.symbol("s")
    assert dim.divide((b + 1) * (s + 2) * 8, (s + 2) * 2) == 4 * b + 4
    assert dim.divide(b * s, s + 1) is None
    assert dim.divide(b * 6, 4) is None
    assert dim.ceil_divide(b * 6 + 1, 3) != b * 2


def test_a_negative_remainder_keeps_its_meaning_as_text() -> None:
    size = dim.symbol("b") % 2 * -1
    assert dim.parse_size(str(size)) == size


def test_an_unbound_dimension_is_named() -> None:
    size = dim.symbol("b") * 2 + dim.symbol("s") // 2
    assert isinstance(size, Expression)
    with pytest.raises(dim.UnboundError) as caught:
        dim.number(size, {"b": 3})
    assert caught.value.names == ("s",)


@pytest.mark.parametrize("text", ["unk__0", "a b", "x.1", "3 +", "", "f(x)", "2**70*x", "Max(1, n)", "(a + b)//2"])
def test_any_name_that_an_exporter_wrote_is_a_size(text: str) -> None:
    size = dim.parse_size(text)
    assert isinstance(size, Expression)
    assert dim.symbols([size])
