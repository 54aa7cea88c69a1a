"""The search for a fusion of kernels: chains of functions in one pass, others over tiles of a loop that they have in common.

A fused tile is good where what passes between the kernels stays in the first level or the second; a handful of tile sizes over
the best variants of each kernel are simulated in full. Cost: a simulation each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memfit.analyses.cache_misses import Misses, misses_of_nest
from memfit.analyses.kernel_cost import arithmetic_seconds
from memfit.fitting.loop_search import weigh
from memfit.ir.kernel import Kernel, Variant, original
from memfit.ir.kernel_chain import KernelChain, as_written, fused_chain, lower_chain, one_pass
from memfit.machine.cache import Hierarchy
from memfit.machine.spec import Machine

TILES = (8, 16, 32, 64, 128)
_MOST_ACCESSES = 400_000_000


@dataclass(frozen=True)
class FoundChain:
    """A program of several kernels with its exact misses, projected seconds and what it changes, in words."""

    chain: KernelChain
    misses: Misses
    seconds: float
    words: str


def judged(chain: KernelChain, hierarchy: Hierarchy, machine: Machine, words: str) -> FoundChain:
    """A chain simulated in full."""
    misses = misses_of_nest(lower_chain(chain), hierarchy)
    arithmetic = sum(arithmetic_seconds(k, v) for k, v in zip(chain.kernels, chain.variants, strict=True))
    lines = weigh([level.misses for level in misses.levels], hierarchy.line, machine)
    return FoundChain(chain, misses, arithmetic + lines, words)


def search_fusion(
    kernels: Sequence[Kernel], variants: Sequence[Variant], hierarchy: Hierarchy, machine: Machine
) -> list[FoundChain]:
    """The original first, then fusions of the kernels with ``variants`` (the best of each), the least projected time first."""
    before = judged(as_written(kernels), hierarchy, machine, "as written")
    found: list[FoundChain] = []
    single = one_pass(kernels)
    if single is not None:
        chain = KernelChain((single,), (original(single),))
        found.append(judged(chain, hierarchy, machine, f"{len(kernels)} passes fused into one"))
    elif before.misses.total <= _MOST_ACCESSES:
        names = ", ".join(kernel.name for kernel in kernels)
        shared = [name for name in kernels[0].extents if all(name in kernel.extents for kernel in kernels)]
        for loop in shared:
            for tile in TILES:
                for chosen in (variants, [original(kernel) for kernel in kernels]):
                    fused = fused_chain(kernels, chosen, loop, tile)
                    if fused is not None:
                        found.append(judged(fused, hierarchy, machine, _words(fused, names, loop, tile)))
    return [before, *sorted(found, key=lambda f: f.seconds)]


def _words(chain: KernelChain, names: str, loop: str, tile: int) -> str:
    orders = "; ".join(f"{k.name}: {v.words(k)}" for k, v in zip(chain.kernels, chain.variants, strict=True))
    return f"{names} fused over tiles of {tile} {loop}, what passes between them kept to a tile ({orders})"
