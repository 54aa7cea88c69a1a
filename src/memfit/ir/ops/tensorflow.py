"""What TensorFlow operators do to memory. Tensors never change; variables, tables, queues and random generators do.

An operator is pure here where TensorFlow's own registry does not call it stateful: the front end notes that as the attribute
``stateful``. Reading a variable that the program assigns hands out the variable's own bytes and is neither merged nor moved.
``view`` and ``in_place`` are what the CPU kernels do (buffer forwarding).
"""

from __future__ import annotations

from dataclasses import replace

from memfit.ir.ops.table import UNKNOWN, Facts, Table, facts
from memfit.ir.program import Operation

_VIEWS = {
    "Identity": "Identity", "StopGradient": "Identity", "PreventGradient": "Identity", "Snapshot": "Identity",
    "CheckNumerics": "", "Reshape": "Reshape", "ExpandDims": "Unsqueeze", "Squeeze": "Squeeze", "Bitcast": "",
    "EnsureShape": "", "PlaceholderWithDefault": "",
}  # fmt: skip
_UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Digamma", "Elu", "Erf", "Erfc", "Erfinv",
    "Exp", "Expm1", "Floor", "Inv", "Invert", "LeakyRelu", "Lgamma", "Log", "Log1p", "LogSoftmax", "LogicalNot", "Neg", "Ndtri",
    "Reciprocal", "Relu", "Relu6", "Rint", "Round", "Rsqrt", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus",
    "Softsign", "Sqrt", "Square", "Tan", "Tanh", "ClipByValue", "FusedBatchNormV3", "FusedBatchNorm",
)  # fmt: skip
_BINARY = {
    "Add": "Add", "AddV2": "Add", "Sub": "Sub", "Mul": "Mul", "Div": "Div", "RealDiv": "Div", "Pow": "Pow", "Maximum": "",
    "Minimum": "", "FloorDiv": "", "FloorMod": "", "Mod": "", "SquaredDifference": "", "DivNoNan": "", "MulNoNan": "",
    "LogicalAnd": "And", "LogicalOr": "Or", "ReluGrad": "", "Relu6Grad": "", "SigmoidGrad": "", "TanhGrad": "", "AddN": "",
    "RsqrtGrad": "", "SqrtGrad": "", "EluGrad": "", "SeluGrad": "", "SoftplusGrad": "", "LeakyReluGrad": "", "Atan2": "",
}  # fmt: skip
_COMMUTATIVE = frozenset(("Add", "AddV2", "Mul", "LogicalAnd", "LogicalOr", "Maximum", "Minimum"))
_RANDOM = ("RandomUniform", "RandomStandardNormal", "RandomUniformInt", "TruncatedNormal", "Multinomial", "RandomShuffle",
           "ParameterizedTruncatedNormal", "RandomGammaV2", "RandomPoissonV2")  # fmt: skip
_NAMED = {
    "Cast": "Cast",
    "Tile": "Tile",
    "BroadcastTo": "Expand",
    "Pad": "Pad",
    "SelectV2": "Where",
    "Fill": "",
    "Range": "",
}

_ROWS = {name: Facts(what, pure=True, view=0) for name, what in _VIEWS.items()}
_ROWS |= {name: Facts("", pure=True, in_place=(0,)) for name in _UNARY}
_ROWS |= {name: Facts(what, pure=True, in_place=(0, 1)) for name, what in _BINARY.items()}
_ROWS |= {name: Facts(what, pure=True) for name, what in _NAMED.items()}
_ROWS |= {name: Facts(random=True) for name in _RANDOM}
_ROWS |= {name: replace(_ROWS[name], commutative=True) for name in _COMMUTATIVE}
_ROWS["BiasAdd"] = Facts("BiasAdd", pure=True, in_place=(0,))
_ROWS["IdentityN"] = Facts("IdentityN", pure=True)
_ROWS["ReadVariableOp"] = Facts(view=0)
_ROWS |= {
    name: Facts(pure=True, view=0)
    for name in (
        "TensorListFromTensor",
        "TensorListSetItem",
        "TensorListPushBack",
        "TensorListPopBack",
        "TensorListResize",
    )
}
_CONTROL = ("While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase")


def _refine(operation: Operation, row: Facts) -> Facts:
    """Stateful operators are unknown; a loop or branch does what its bodies do; everything else is pure."""
    kind = operation.kind.partition(".")[2]
    if kind in _CONTROL:
        inside = [facts(op) for _, body in operation.bodies for op in body.operations]
        if any(not f.pure and not f.random for f in inside):
            return UNKNOWN
        return Facts(random=True) if any(f.random for f in inside) else Facts(pure=True)
    if row is UNKNOWN:
        return UNKNOWN if operation.attribute("stateful") else Facts(pure=True)
    return row


TABLE = Table(_ROWS, _refine)
