"""C++ of kernels in a variant: loops kept in their order, the innermost free to run on vectors, sums that stay in registers.

An empty assembly statement in every loop but the innermost keeps compilers from changing the order that is to be timed; inner
loops of a few trips, such as the columns of a filter, are written out, so that the loop around them is the innermost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from memfit.analyses.kernel_cost import UNROLLED
from memfit.ir.kernel import Kernel, Reference, Variant, depth_of, loops_of, original, sums_in_memory
from memfit.ir.kernel_chain import KernelChain
from memfit.ir.nest import ArraySpec, Sum


def source_of(kernel: Kernel, variant: Variant, name: str) -> str:
    """One kernel as a C++ function over pointers, arrays in the kernel's order."""
    return source_of_chain(KernelChain((kernel,), (variant,)), name)


def source_of_chain(chain: KernelChain, name: str) -> str:
    """All kernels of a chain as one C++ function over pointers, arrays in the chain's order."""
    arrays = chain.arrays()
    written = {kernel.write[0] for kernel in chain.kernels}
    parameters = ", ".join(f"{'' if a in written else 'const '}float* __restrict {a}" for a in arrays)
    lines = [f'extern "C" void {name}({parameters}) {{']
    if chain.fused is not None:
        outer = loops_of(chain.kernels[0], chain.variants[0])[0]
        lines.append(f"  {_head(outer.variable, outer.start, outer.stops, outer.step)}")
    for kernel, variant in zip(chain.kernels, chain.variants, strict=True):
        lines += _statements(kernel, variant, arrays, skip=chain.fused is not None)
    if chain.fused is not None:
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def _statements(kernel: Kernel, variant: Variant, arrays: Mapping[str, ArraySpec], *, skip: bool) -> list[str]:
    loops = loops_of(kernel, variant)
    deepest = depth_of(kernel.write, loops)
    summed = bool(kernel.reductions)
    before: list[list[str]] = [[] for _ in range(len(loops) + 1)]
    for number, reference in enumerate(kernel.reads):
        before[depth_of(reference, loops)].append(f"const float r{number} = {_place(reference, arrays)};")
    target = _place(kernel.write, arrays)
    value = _value(kernel)
    inside: list[str] = []
    if summed:
        memory = sums_in_memory(kernel, loops)
        before[deepest].append(f"float sum = {target if memory else '0.0f'};")
        if memory and skip:
            inside = _cleared(kernel, variant, arrays)
    for depth in range(len(loops) + 1):
        pad = "  " * (depth + 1)
        inside += [pad + text for text in before[depth]]
        if int(skip) <= depth < len(loops):
            loop = loops[depth]
            within = math.prod(inner.trips for inner in loops[depth + 1 :])
            if 1 < loop.trips <= UNROLLED and within * loop.trips <= UNROLLED:
                inside.append(f"{pad}#pragma GCC unroll {loop.trips}")
            inside.append(pad + _head(loop.variable, loop.start, loop.stops, loop.step))
            if within > UNROLLED:
                inside.append(f'{pad}  __asm__ volatile("");')
    inside.append("  " * (len(loops) + 1) + (f"sum += {value};" if summed else f"{target} = {value};"))
    for depth in range(len(loops), int(skip) - 1, -1):
        pad = "  " * (depth + 1)
        if summed and depth == deepest:
            inside.append(f"{pad}{target} = sum;")
        if depth > int(skip):
            inside.append("  " * depth + "}")
    return ["  {", *inside, "  }"]


def _cleared(kernel: Kernel, variant: Variant, arrays: Mapping[str, ArraySpec]) -> list[str]:
    """Zeros where the sums of a fused tile will start in memory, as the tile before may have left its own there."""
    named = [name for name, _ in kernel.loops if name not in kernel.reductions]
    loops = loops_of(kernel, variant)
    plain = {loop.variable: loop for loop in loops_of(kernel, original(kernel))}
    lines = []
    for number, name in enumerate(named):
        loop = next(item for item in loops if item.variable == name) if name == loops[0].of else plain[name]
        lines.append("  " * (number + 2) + _head(name, loop.start, loop.stops, 1))
    lines.append("  " * (len(named) + 2) + f"{_place(kernel.write, arrays)} = 0.0f;")
    lines += ["  " * (number + 2) + "}" for number in range(len(named) - 1, -1, -1)]
    return lines


def _head(variable: str, start: Sum, stops: Sequence[Sum], step: int) -> str:
    texts = [_sum(stop) for stop in stops]
    bound = texts[0] if len(texts) == 1 else f"(({texts[0]}) < ({texts[1]}) ? ({texts[0]}) : ({texts[1]}))"
    return f"for (long {variable} = {_sum(start)}; {variable} < {bound}; {variable} += {step}) {{"


def _value(kernel: Kernel) -> str:
    names = [f"r{number}" for number in range(len(kernel.reads))]
    if kernel.combine == "product":
        return " * ".join(names)
    if kernel.combine == "chain":
        text = names[0]
        for _ in range(max(kernel.flops, 1)):
            text = f"({text} * 1.0009765625f + 0.5f)"
        return text
    return " + ".join(names)


def _sum(total: Sum) -> str:
    parts = [f"{c} * {n}" if c != 1 else n for n, c in total.parts]
    return " + ".join([*parts, *([str(total.constant)] if total.constant or not parts else [])])


def _place(reference: Reference, arrays: Mapping[str, ArraySpec]) -> str:
    array = arrays[reference[0]]
    total = Sum()
    for subscript, step in zip(reference[1], array.steps(), strict=True):
        total = total.plus(subscript, step // array.item)
    return f"{reference[0]}[{_sum(total)}]"
