"""Kernels that run one after another over shared arrays, each in a variant, or fused: outermost tiles of one loop in common.

for i_tile:                      what the first kernel makes of a tile is used by the second before it leaves the cache,
    first kernel, i in the tile  so that an array between them shrinks to a tile (attention without its scores in memory;
    second kernel, i in the tile Dao et al., FlashAttention, 2022, without the softmax)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from memfit.errors import NestError
from memfit.ir.kernel import Kernel, Reference, Variant, arrays_of, body_of, loops_of, original
from memfit.ir.nest import Access, ArraySpec, Loop, Nest, Sum, placed


@dataclass(frozen=True)
class KernelChain:
    """Kernels with a variant each. ``fused``: the loop whose tiles they have in common, outermost in all of them, or None."""

    kernels: tuple[Kernel, ...]
    variants: tuple[Variant, ...]
    fused: str | None = None

    def arrays(self) -> dict[str, ArraySpec]:
        """All arrays, in the order in which they are met."""
        found: dict[str, ArraySpec] = {}
        for kernel, variant in zip(self.kernels, self.variants, strict=True):
            for name, array in arrays_of(kernel, variant).items():
                if found.setdefault(name, array) != array:
                    raise NestError(kernel.name, f"{name} is laid out in two ways", "give both kernels the same rows")
        return found

    def written(self) -> str:
        """The array that the last kernel writes."""
        return self.kernels[-1].write[0]


def as_written(kernels: Sequence[Kernel]) -> KernelChain:
    """The kernels one after another, each in its own order."""
    return KernelChain(tuple(kernels), tuple(original(kernel) for kernel in kernels))


def lower_chain(chain: KernelChain) -> Nest:
    """The nest of all kernels."""
    bodies: list[tuple[Loop | Access, ...]] = [
        body_of(kernel, variant) for kernel, variant in zip(chain.kernels, chain.variants, strict=True)
    ]
    body = tuple(part for parts in bodies for part in parts)
    if chain.fused is not None:
        outer = [part for part in body if isinstance(part, Loop)]
        body = (replace(outer[0], body=tuple(part for loop in outer for part in loop.body)),)
    return placed(Nest(body, chain.arrays(), " and ".join(kernel.name for kernel in chain.kernels)))


def fused_chain(kernels: Sequence[Kernel], variants: Sequence[Variant], loop: str, tile: int) -> KernelChain | None:
    """The kernels with ``tile`` steps of ``loop`` in common, what passes between them shrunk to a tile; None: they cannot.

    They can where each element that a kernel reads of another was written in the same step of the loop.
    """
    if any(loop not in kernel.extents or kernel.extents[loop] != kernels[0].extents[loop] for kernel in kernels):
        return None
    if loop in frozenset().union(*(kernel.reductions for kernel in kernels)):
        return None
    if tile >= kernels[0].extents[loop]:
        return None
    made: dict[str, int] = {}  # by array, its dimension that the loop counts
    for kernel in kernels:
        for array, subscripts in kernel.reads:
            if array in made and subscripts[made[array]] != Sum.of(loop):
                return None
        own = [number for number, subscript in enumerate(kernel.write[1]) if subscript == Sum.of(loop)]
        if len(own) != 1 or kernel.write[0] in made:
            return None
        made[kernel.write[0]] = own[0]
    del made[kernels[-1].write[0]]
    changed, chosen = [], []
    for kernel, variant in zip(kernels, variants, strict=True):
        changed.append(_shrunk(kernel, made, loop, tile))
        tiles = ((loop, tile), *((name, size) for name, size in variant.tiles if name != loop))
        leading = {name: row for name, row in variant.leading.items() if name not in made}
        chosen.append(Variant(variant.order, tiles, leading))
    chain = KernelChain(tuple(changed), tuple(chosen), loop)
    firsts = [loops_of(kernel, variant)[0] for kernel, variant in zip(changed, chosen, strict=True)]
    if any(first.variable != f"{loop}_tile" for first in firsts):
        return None
    return _one_layout(chain)


def _one_layout(chain: KernelChain) -> KernelChain:
    """Rows padded for one kernel are padded for all."""
    rows = {name: row for variant in chain.variants for name, row in variant.leading.items()}
    variants = tuple(
        replace(variant, leading={name: row for name, row in rows.items() if name in kernel.arrays})
        for kernel, variant in zip(chain.kernels, chain.variants, strict=True)
    )
    return replace(chain, variants=variants)


def _shrunk(kernel: Kernel, made: dict[str, int], loop: str, tile: int) -> Kernel:
    def moved(reference: Reference) -> Reference:
        array, subscripts = reference
        if array not in made:
            return reference
        within = Sum.of(loop).plus(Sum.of(f"{loop}_tile"), -1)
        return array, tuple(within if number == made[array] else s for number, s in enumerate(subscripts))

    arrays = {
        name: replace(array, shape=(*array.shape[: made[name]], tile, *array.shape[made[name] + 1 :]))
        if name in made
        else array
        for name, array in kernel.arrays.items()
    }
    reads = tuple(moved(reference) for reference in kernel.reads)
    return replace(kernel, reads=reads, write=moved(kernel.write), arrays=arrays)


def one_pass(kernels: Sequence[Kernel]) -> Kernel | None:
    """Chains of functions over the same loops as one kernel, what passes between them in registers; None: they are none."""
    first = kernels[0]
    if len(kernels) < 2 or any(kernel.combine != "chain" or kernel.loops != first.loops for kernel in kernels):
        return None
    for before, after in itertools.pairwise(kernels):
        if after.reads != (before.write,):
            return None
    last = kernels[-1]
    arrays = {first.reads[0][0]: first.arrays[first.reads[0][0]], last.write[0]: last.arrays[last.write[0]]}
    return replace(first, name="one pass", write=last.write, arrays=arrays, flops=sum(k.flops for k in kernels))
