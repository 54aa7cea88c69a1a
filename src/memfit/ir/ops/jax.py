"""What JAX primitives do to memory. Values never change and random numbers come from keys, so all are pure but for effects.

A primitive with effects (callbacks, prints, references) carries them as its attribute ``effects``, and is unknown here.
``view`` and ``in_place`` are what XLA's buffer assignment may do on a CPU; fusion does more, and is the compiler's.
"""

from __future__ import annotations

from memfit.ir.ops.table import UNKNOWN, Facts, Table, facts
from memfit.ir.program import Operation

_VIEWS = ("reshape", "squeeze", "expand_dims", "bitcast_convert_type")
_UNARY = (
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "clz", "conj", "cos", "cosh", "cumsum", "cumprod",
    "cummax", "cummin", "cumlogsumexp", "digamma", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "integer_pow",
    "is_finite", "lgamma", "log", "log1p", "logistic", "neg", "not", "population_count", "real", "reduce_precision", "rev",
    "round", "rsqrt", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "convert_element_type",
)  # fmt: skip
_BINARY = (
    "sub",
    "div",
    "rem",
    "pow",
    "atan2",
    "nextafter",
    "shift_left",
    "shift_right_arithmetic",
    "shift_right_logical",
)
_COMMUTATIVE = ("add", "add_any", "mul", "max", "min", "and", "or", "xor")
_COMPARE = ("eq", "ne", "ge", "gt", "le", "lt")

_ROWS = {name: Facts(name, pure=True, view=0) for name in _VIEWS}
_ROWS |= {name: Facts(name, pure=True, in_place=(0,)) for name in _UNARY}
_ROWS |= {name: Facts(name, pure=True, in_place=(0, 1)) for name in _BINARY}
_ROWS |= {name: Facts(name, pure=True, in_place=(0, 1), commutative=True) for name in _COMMUTATIVE}
_ROWS |= {name: Facts(name, pure=True) for name in _COMPARE}
_ROWS["select_n"] = Facts("select_n", pure=True, in_place=(1, 2))
_ROWS["clamp"] = Facts("clamp", pure=True, in_place=(1,))
_ROWS["dynamic_update_slice"] = Facts("dynamic_update_slice", pure=True, in_place=(0,))
_ROWS["scatter"] = _ROWS["scatter-add"] = Facts("scatter", pure=True, in_place=(0,))


def _refine(operation: Operation, row: Facts) -> Facts:
    """Effects make a primitive unknown, inside of bodies too; without them each one is pure, named here or not."""
    if operation.attribute("effects"):
        return UNKNOWN
    if any(facts(inner) is UNKNOWN for _, body in operation.bodies for inner in body.operations):
        return UNKNOWN
    return Facts(operation.kind.partition(".")[2], pure=True) if row is UNKNOWN else row


TABLE = Table(_ROWS, _refine)
