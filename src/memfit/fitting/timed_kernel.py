"""The proof: C++ of each variant of a pattern, compiled on this machine, checked against the first, timed in turns.

Every variant is a function of one shared library (``kernel_source``); results must agree (sums up to their order). Times are
medians of CPU seconds over rounds in which every variant runs once, so that a slow moment meets all; spreads are quartiles. A
claim needs quartiles that do not overlap (``Timed.faster_than``). Nothing is claimed where no compiler is found.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memfit.errors import MachineError, VerifyError
from memfit.fitting.kernel_source import source_of_chain
from memfit.ir.kernel import Kernel, Variant
from memfit.ir.kernel_chain import KernelChain
from memfit.ir.nest import ArraySpec

FLAGS = (
    "-O2",
    "-march=native",
    "-ftree-vectorize",
    "-fvect-cost-model=dynamic",
    "-fno-math-errno",
    "-shared",
    "-fPIC",
    "-x",
    "c++",
)
_COMPILERS = ("c++", "g++", "clang++")
_SHORT = 0.004
"""Runs shorter than this many seconds are repeated within a round, and the shortest counts."""


@dataclass(frozen=True)
class Timed:
    """Measured seconds: median and quartiles of ``rounds`` runs."""

    seconds: float
    low: float
    high: float
    rounds: int

    def faster_than(self, other: Timed) -> bool:
        """Whether its quartiles lie below the other's."""
        return self.high < other.low

    def spread(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile in seconds."""
        return self.low, self.seconds, self.high


def timed_of(seconds: Sequence[float]) -> Timed:
    """Median and quartiles of some runs."""
    low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (seconds[0],) * 3
    return Timed(middle, low, high, len(seconds))


def find_compiler() -> str:
    """The C++ compiler: ``$CXX``, else the first of the usual names.

    Raises:
        MachineError: there is none.
    """
    wanted = os.environ.get("CXX")
    names = (wanted,) if wanted else _COMPILERS
    for name in names:
        if shutil.which(name):
            return name
    raise MachineError(
        "compiler", f"none of {', '.join(names)} is here, so nothing can be timed",
        "install g++, set CXX, or ask without --prove",
    )  # fmt: skip


def compiled(text: str, folder: Path) -> ctypes.CDLL:
    """A shared library of C++ functions.

    Raises:
        MachineError: no compiler, or it refuses.
    """
    compiler = find_compiler()
    source, library = folder / "variants.cc", folder / "variants.so"
    source.write_text(text)
    command = [compiler, *FLAGS, str(source), "-o", str(library)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError("compiler", f"{compiler} did not finish: {error}", "set CXX to another one") from error
    if run.returncode:
        raise MachineError("compiler", f"{compiler} refuses: {run.stderr.strip()[:300]}", "set CXX to another one")
    return ctypes.CDLL(str(library))


def time_variants(kernel: Kernel, variants: Sequence[Variant], *, rounds: int = 9, budget: float = 6.0) -> list[Timed]:
    """``time_chains`` of one kernel in each variant."""
    return time_chains([KernelChain((kernel,), (variant,)) for variant in variants], rounds=rounds, budget=budget)


def time_chains(chains: Sequence[KernelChain], *, rounds: int = 9, budget: float = 6.0) -> list[Timed]:
    """Compile, check and time programs on this machine that compute the same.

    Args:
        rounds: runs of each, at most; ``budget``: seconds in all, but at least three rounds are run.

    Raises:
        MachineError: no compiler, or numbers that are not float32. VerifyError: a program computes something else.
    """
    if any(array.item != 4 for chain in chains for array in chain.arrays().values()):
        raise MachineError("compiler", "only float32 is timed", "ask without --prove")
    names = [f"v{number}" for number in range(len(chains))]
    with tempfile.TemporaryDirectory(prefix="memfit-") as folder:
        text = "".join(source_of_chain(chain, name) for chain, name in zip(chains, names, strict=True))
        library = compiled(text, Path(folder))
        sets = [_arguments(chain) for chain in chains]
        calls = [_Call(library, name, list(arrays.values())) for name, arrays in zip(names, sets, strict=True)]
        once = [call.seconds() for call in calls]
        _agree(chains, sets)
        return in_turns([call.seconds for call in calls], once, rounds=rounds, budget=budget)


def in_turns(runs: Sequence[object], once: Sequence[float], *, rounds: int, budget: float) -> list[Timed]:
    """Times of functions that return the seconds of one run, each once a round; short ones repeated, the shortest counting."""
    repeats = [max(1, min(50, int(_SHORT / max(seconds, 1e-7)))) for seconds in once]
    times: list[list[float]] = [[] for _ in runs]
    start = time.perf_counter()
    for turn in range(rounds):
        if turn >= 3 and time.perf_counter() - start > budget:
            break
        for number, run in enumerate(runs):
            times[number].append(min(run() for _ in range(repeats[number])))  # type: ignore[operator]
    return [timed_of(seconds) for seconds in times]


class _Call:
    """A function of a library with its arguments."""

    def __init__(self, library: ctypes.CDLL, name: str, arrays: Sequence[np.ndarray]) -> None:
        self.function = getattr(library, name)
        self.function.restype = None
        self.given = [ctypes.c_void_p(memory.ctypes.data) for memory in arrays]

    def seconds(self) -> float:
        """CPU seconds of this thread in one run, which waiting for a processor that others use does not count in."""
        start = time.thread_time()
        self.function(*self.given)
        return time.thread_time() - start


def _memory(array: ArraySpec) -> np.ndarray:
    """Page-aligned memory of an array, zero."""
    count = array.span() // array.item
    raw = np.zeros(count + 1024 + 64, np.float32)
    skip = (-raw.ctypes.data % 4096) // 4
    return raw[skip : skip + count]


def _arguments(chain: KernelChain) -> dict[str, np.ndarray]:
    """Memory of every array, inputs filled: the same numbers in every chain, whatever the rows."""
    written = {kernel.write[0] for kernel in chain.kernels}
    arrays = {}
    for name, array in chain.arrays().items():
        arrays[name] = _memory(array)
        if name not in written:
            draw = np.random.default_rng(list(name.encode()))
            _view(arrays[name], array)[...] = draw.random(array.shape, np.float32)
    return arrays


def _view(memory: np.ndarray, array: ArraySpec) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(memory, array.shape, array.steps())


def _agree(chains: Sequence[KernelChain], sets: Sequence[dict[str, np.ndarray]]) -> None:
    """Every chain's last array against the first chain's."""
    first: np.ndarray | None = None
    for chain, arrays in zip(chains, sets, strict=True):
        name = chain.written()
        result = _view(arrays[name], chain.arrays()[name]).astype(np.float64)
        if first is None:
            first = result
            continue
        wrong = float(np.abs(result - first).max() / max(np.abs(first).max(), 1e-30))
        if not wrong < 1e-3:
            what = "; ".join(v.words(k) for k, v in zip(chain.kernels, chain.variants, strict=True))
            raise VerifyError(f"{chain.kernels[0].name}, {what}", "the result of the first variant", f"{wrong:.1e} off")
