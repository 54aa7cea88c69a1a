"""Ready patterns of tensor operations: a name and sizes -> kernels, one after another, as a plain program writes them.

    matmul[:M[,N,K]]             C[i,j] += A[i,k] B[k,j], order i j k
    conv:C,H,W,K,R[,layout]      direct, stride 1, no padding; layout nchw, nhwc or nchw8 (channels in blocks of 8)
    attention:T[,D]              scores and their product with the values, one head, without the softmax's passes
    reduction:M[,N[,axis]]       sums over rows or columns
    transpose:M[,N]
    elementwise:N[,operations]   a chain of functions, each through memory
Gathers by index are no nests: ``memfit.analyses.gathers``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memfit.errors import NestError
from memfit.ir.kernel import Kernel, Reference
from memfit.ir.nest import MOST_BYTES, ArraySpec, Sum

_BLOCK = 8


def _reference(text: str) -> Reference:
    array, _, inside = text.partition("[")
    subscripts = []
    for part in inside.rstrip("]").split(","):
        total = Sum()
        for piece in part.split("+"):
            number, star, name = piece.strip().rpartition("*")
            total = total.plus(Sum.of(name), int(number) if star else 1)
        subscripts.append(total)
    return array, tuple(subscripts)


def kernel_of(
    name: str, loops: Sequence[tuple[str, int]], write: str, reads: Sequence[str], *, combine: str = "product", flops: int = 2,
    item: int = 4,
) -> Kernel:  # fmt: skip
    """A kernel from texts such as "C[i,j]"; arrays get the extents that their subscripts reach."""
    extents = dict(loops)
    shapes: dict[str, list[int]] = {}
    references = [_reference(text) for text in (*reads, write)]
    for array, subscripts in references:
        reach = [1 + s.constant + sum(c * (extents[n] - 1) for n, c in s.parts) for s in subscripts]
        known = shapes.setdefault(array, reach)
        shapes[array] = [max(a, b) for a, b in zip(known, reach, strict=True)]
    arrays = {array: ArraySpec(tuple(shape), item) for array, shape in shapes.items()}
    return Kernel(name, tuple(loops), tuple(references[:-1]), references[-1], arrays, combine, flops)


def matmul(m: int = 512, n: int = 0, k: int = 0) -> list[Kernel]:
    """The matrix product, order i j k."""
    return [kernel_of("matmul", [("i", m), ("j", n or m), ("k", k or m)], "C[i,j]", ["A[i,k]", "B[k,j]"])]


def convolution(c: int = 32, h: int = 30, w: int = 30, k: int = 32, r: int = 3, layout: str = "nchw") -> list[Kernel]:
    """A direct convolution of one image: k filters of c x r x r over c x h x w, stride 1, no padding."""
    rows, columns = h - r + 1, w - r + 1
    if rows <= 0 or columns <= 0:
        raise NestError("conv", f"a filter of {r} over {h} x {w}", "filters are smaller than images")
    loops = [("k", k), ("y", rows), ("x", columns), ("c", c), ("r", r), ("s", r)]
    if layout == "nchw":
        return [kernel_of("conv nchw", loops, "O[k,y,x]", ["I[c,y+r,x+s]", "W[k,c,r,s]"])]
    if layout == "nhwc":
        return [kernel_of("conv nhwc", loops, "O[y,x,k]", ["I[y+r,x+s,c]", "W[r,s,c,k]"])]
    if layout == "nchw8":
        if c % _BLOCK or k % _BLOCK:
            raise NestError("conv", f"{c} and {k} channels in blocks of {_BLOCK}", "take multiples of 8, or nhwc")
        blocked = [
            ("ko", k // _BLOCK),
            ("y", rows),
            ("x", columns),
            ("co", c // _BLOCK),
            ("r", r),
            ("s", r),
            ("ci", _BLOCK),
            ("ki", _BLOCK),
        ]
        return [kernel_of("conv nchw8", blocked, "O[ko,y,x,ki]", ["I[co,y+r,x+s,ci]", "W[ko,co,r,s,ci,ki]"])]
    raise NestError("conv", f"there is no layout {layout!r}", "there are nchw, nhwc and nchw8")


def attention(t: int = 256, d: int = 64) -> list[Kernel]:
    """Scores of every pair, then their product with the values."""
    return [
        kernel_of("scores", [("i", t), ("j", t), ("d", d)], "S[i,j]", ["Q[i,d]", "K[j,d]"]),
        kernel_of("values", [("i", t), ("d", d), ("j", t)], "O[i,d]", ["S[i,j]", "V[j,d]"]),
    ]


def reduction(m: int = 1024, n: int = 0, axis: int = 0) -> list[Kernel]:
    """Sums over one axis; axis 0 as its definition reads: for every column, down the rows."""
    n = n or m
    if axis not in (0, 1):
        raise NestError("reduction", f"there is no axis {axis}", "axes are 0 and 1")
    if axis == 0:
        return [kernel_of("reduction", [("j", n), ("i", m)], "S[j]", ["A[i,j]"], combine="sum", flops=1)]
    return [kernel_of("reduction", [("i", m), ("j", n)], "S[i]", ["A[i,j]"], combine="sum", flops=1)]


def transpose(m: int = 1024, n: int = 0) -> list[Kernel]:
    """B[j,i] = A[i,j]."""
    return [kernel_of("transpose", [("i", m), ("j", n or m)], "B[j,i]", ["A[i,j]"], combine="copy", flops=0)]


def elementwise(n: int = 1 << 20, operations: int = 3) -> list[Kernel]:
    """A chain of functions of one array, each a pass over memory."""
    names = ["X", *(f"T{i}" for i in range(1, operations)), "Y"]
    return [
        kernel_of(f"step {i + 1}", [("i", n)], f"{names[i + 1]}[i]", [f"{names[i]}[i]"], combine="chain", flops=1)
        for i in range(operations)
    ]


PATTERNS: dict[str, Callable[..., list[Kernel]]] = {
    "matmul": matmul, "conv": convolution, "attention": attention, "reduction": reduction, "transpose": transpose,
    "elementwise": elementwise,
}  # fmt: skip


def parse_pattern(text: str) -> list[Kernel]:
    """``"matmul:512"``, ``"conv:64,58,58,64,3,nhwc"`` -> its kernels.

    Raises:
        NestError: no such pattern, sizes that are none or too large.
    """
    name, _, rest = text.partition(":")
    if name not in PATTERNS:
        raise NestError(repr(text), f"there is no pattern {name!r}", f"there are {', '.join([*PATTERNS, 'gather'])}")
    values: list[int | str] = []
    for part in (piece.strip() for piece in rest.split(",") if piece.strip()):
        digits = part.lstrip("-").isdecimal()
        if digits and (int(part) < 0 or (int(part) == 0 and not (name == "reduction" and len(values) == 2))):
            raise NestError(repr(text), f"a size of {part}", "sizes are positive")
        values.append(int(part) if digits else part)
    try:
        kernels = PATTERNS[name](*values)
    except TypeError as error:
        raise NestError(
            repr(text), f"its sizes do not fit: {values}", f"see memfit locality --help for {name}"
        ) from error
    for kernel in kernels:
        if any(array.span() > MOST_BYTES // 8 for array in kernel.arrays.values()) or kernel.executions() > 1 << 50:
            raise NestError(repr(text), "its arrays are too large to simulate", "take smaller sizes")
    return kernels
