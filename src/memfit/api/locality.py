"""``memfit.locality``: misses of an access pattern by level and array, why, and a better order, proved by timing.

memfit.locality("matmul:512")                       a ready pattern, machine as the system describes it
memfit.locality.nest(loops, accesses, arrays)       an affine nest -> Nest, which memfit.locality(...) also takes
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memfit.analyses.cache_misses import misses_of_nest
from memfit.analyses.miss_reasons import Reason, lower_bound_lines, reasons_of
from memfit.analyses.patterns import PATTERNS, parse_pattern
from memfit.analyses.reuse import reuse_of_nest
from memfit.api.locality_advice import advice_for
from memfit.api.locality_traces import analyse_trace, is_trace
from memfit.api.model_locality import model_locality
from memfit.errors import MachineError, NestError
from memfit.fitting.timed_kernel import find_compiler
from memfit.ir.kernel import Kernel
from memfit.ir.kernel_chain import as_written, lower_chain
from memfit.ir.kernel_of_nest import kernel_of_nest
from memfit.ir.nest import Access, ArraySpec, Loop, Nest, Sum, encode, placed
from memfit.ir.nest_source import nest_from_source
from memfit.ir.step import Step
from memfit.machine.cache import CacheLevel, Hierarchy, parse_hierarchy
from memfit.machine.spec import Machine, load_machine
from memfit.report.locality_summary import AdviceRow, LevelRow, LocalityReport, ReasonRow

MOST_REUSE = 3_000_000_000
"""Accesses of a nest up to which reuse distances are counted; beyond, misses alone."""


class Locality:
    """The verb ``memfit.locality`` and the makers of what it takes."""

    def __call__(
        self, pattern: str | Nest | Step | Callable[..., Any], *, machine: Machine | str | None = None,
        cache: Hierarchy | str | None = None, settings: Mapping[str, Any] | None = None, advise: bool = True,
        prove: bool | None = False, progress: Any = None,
    ) -> LocalityReport:  # fmt: skip
        """Misses of a pattern by level and array, reasons, miss-ratio curve, lower bound, and what to change.

        Args:
            pattern: "matmul:512" and the like, a file of Python loops (.py), of addresses (.npy), or a ``Nest``; or a program
                (a target, a Step): see ``memfit.api.model_locality``.
            machine: a ``Machine``, or what ``load_machine`` takes; None: this one, by the system's word.
            cache: levels in place of the machine's, such as "48KiB/12,1MiB/16".
            settings: numbers for names in a file of loops.
            advise: search for a better order, tiles and padding.
            prove: compile and time it against the original on this machine; None: where there is a compiler.

        Raises:
            NestError: the pattern is none. MachineError: the machine or cache is none; with ``prove``, no compiler.

        Cost: a second or two; as written, the simulation alone (see ``memfit.analyses.cache_misses``).
        """
        if not isinstance(pattern, (str, Nest)) or (
            isinstance(pattern, str) and not is_pattern(pattern) and ":" in pattern
        ):
            return model_locality(
                pattern, machine=machine, settings=settings, advise=advise, prove=prove is not False, progress=progress
            )
        start = time.process_time()
        here = machine if isinstance(machine, Machine) else _machine(machine, told=cache is None)
        levels = here.hierarchy() if cache is None else parse_hierarchy(cache) if isinstance(cache, str) else cache
        notes: list[str] = []
        if prove is not False:
            try:
                find_compiler()
                prove = True
            except MachineError as error:
                if prove:
                    raise
                notes.append(error.why)
                prove = False
        name = pattern if isinstance(pattern, str) else pattern.name
        word = here.name if cache is None else ", ".join(_level_words(level) for level in levels.levels)
        sizes = tuple((level.name, level.bytes) for level in levels.levels)
        if isinstance(pattern, str) and is_trace(pattern):
            answer = analyse_trace(pattern, levels, here, advise=advise, prove=prove)
            return LocalityReport(
                name, word, answer.misses.total, answer.levels, answer.reasons, tuple(answer.reuse.curve()), answer.reuse.cold,
                levels.line, tuple(answer.advice), time.process_time() - start, sizes, (*notes, *answer.notes),
            )  # fmt: skip
        kernels, nest = _kernels(pattern, settings)
        misses = misses_of_nest(nest, levels)
        reuse, reasons = None, tuple[Reason, ...]()
        if misses.total <= MOST_REUSE:
            reuse = reuse_of_nest(nest, tuple(dict.fromkeys(level.lines for level in levels.levels)), levels.line)
            reasons = reasons_of(misses, reuse, nest, levels)
        else:
            notes.append(f"more than {MOST_REUSE:,} accesses: reuse distances and reasons are left out")
        touched = dict(reuse.cold_by_array or {}) if reuse is not None else _lines(nest, levels.line)
        advice: list[AdviceRow] = []
        if advise and kernels:
            advice = advice_for(kernels, levels, here, touched, prove=prove, notes=notes, progress=progress)
        elif advise:
            notes.append(
                "no single statement in a perfect nest: it is analysed as it is, without a search for a better order"
            )
        return LocalityReport(
            name, word, misses.total,
            tuple(LevelRow(v.name, v.accesses, v.misses, v.by_array, v.write_backs) for v in misses.levels),
            tuple(ReasonRow(r.array, r.level, r.misses, r.cold, r.capacity, r.conflict, r.word, r.sets) for r in reasons),
            tuple(reuse.curve()) if reuse is not None else (),
            lower_bound_lines(kernels, levels.levels[0], touched) if kernels else sum(touched.values()),
            levels.line, tuple(advice), time.process_time() - start, sizes, tuple(notes),
        )  # fmt: skip

    @staticmethod
    def nest(
        loops: Sequence[tuple[str, int]],
        accesses: Sequence[tuple[Any, ...]],
        arrays: Mapping[str, Any],
        name: str = "nest",
    ) -> Nest:
        """A perfect affine nest.

        Args:
            loops: (name, extent), outermost first.
            accesses: (array, "r" or "w", index expressions), all in the innermost loop; a fourth member, the number of loops
                around it, puts an access before (a read) or after (a write) the loops inside.
            arrays: by name an ``ArraySpec``, a shape, or a mapping of shape, item, leading, base.

        Raises:
            NestError: an expression that is not affine, a subscript outside of its array, a loop that never runs.
        """
        return _nest(loops, accesses, arrays, name)


def _nest(
    loops: Sequence[tuple[str, int]], accesses: Sequence[tuple[Any, ...]], arrays: Mapping[str, Any], name: str
) -> Nest:
    try:
        loops = [(str(loop), operator.index(extent)) for loop, extent in loops]
    except (TypeError, ValueError) as error:
        raise NestError(name, f"its loops are {loops!r}", "write (name, extent) with whole extents") from error
    depth = len(loops)
    before: list[list[Loop | Access]] = [[] for _ in range(depth + 1)]
    after: list[list[Loop | Access]] = [[] for _ in range(depth + 1)]
    names = [loop for loop, _ in loops]
    for access in accesses:
        if len(access) not in (3, 4):
            raise NestError(name, f"the access {access!r}", 'write (array, "r" or "w", subscripts)')
        array, mode, subscripts = access[0], access[1], access[2]
        at = access[3] if len(access) > 3 else depth
        if mode not in ("r", "w") or not isinstance(at, int) or not 0 <= at <= depth:
            raise NestError(name, f"the access {access!r}", 'write (array, "r" or "w", subscripts)')
        texts = [subscripts] if isinstance(subscripts, (str, int)) else list(subscripts)
        sums = tuple(_affine(text, names, name) for text in texts)
        place = before if mode == "r" or at == depth else after
        place[at].append(Access(str(array), mode == "w", sums))
    body: tuple[Loop | Access, ...] = tuple(before[depth])
    for number in range(depth - 1, -1, -1):
        loop, extent = loops[number]
        body = (*before[number], Loop(loop, Sum(), (Sum(extent),), body), *after[number])
    nest = placed(Nest(body, {key: _array(key, value) for key, value in arrays.items()}, name))
    encode(nest)  # every subscript within its array, every loop runs
    return nest


def _affine(text: Any, names: Sequence[str], name: str) -> Sum:
    if isinstance(text, Sum):
        return text
    if isinstance(text, int):
        return Sum(text)
    source = (
        "".join(f"{'  ' * n}for {loop} in range(2):\n" for n, loop in enumerate(names))
        + "  " * len(names)
        + f"X[{text}]\n"
    )
    read = nest_from_source(source, None, None, name) if "," not in str(text) else None
    if read is None:
        raise NestError(name, f"the subscript {text!r}", "give subscripts one by one")
    return read.accesses()[0][0].subscripts[0]


def _array(name: str, value: Any) -> ArraySpec:
    if isinstance(value, ArraySpec):
        return value
    if isinstance(value, Mapping):
        known = {"shape", "item", "itemsize", "item_size", "leading", "leading_dimension", "base", "strides"}
        if unknown := sorted(set(value) - known):
            raise NestError(name, f"an array with {', '.join(unknown)}", f"known are {', '.join(sorted(known))}")
        item = value.get("item", value.get("itemsize", value.get("item_size", 4)))
        leading = value.get("leading", value.get("leading_dimension"))
        strides = value.get("strides")
        return ArraySpec(
            tuple(value["shape"]), int(item), leading, value.get("base"), tuple(strides) if strides else None
        )
    return ArraySpec(tuple(value))


def _machine(name: str | None, *, told: bool) -> Machine:
    """The machine; where its levels are given otherwise, and the system says nothing of them, one of typical speed."""
    try:
        return load_machine(name)
    except MachineError:
        if name is not None or told:
            raise
        return Machine("this machine", (), "typical")


def _level_words(level: CacheLevel) -> str:
    return f"{level.name} {level.bytes >> 10} KiB/{level.ways}"


def _lines(nest: Nest, line: int) -> dict[str, int]:
    """Lines of whole arrays: what they touch where nothing was counted."""
    return {name: -(-array.span() // line) for name, array in nest.arrays.items()}


def _kernels(pattern: str | Nest, settings: Mapping[str, int] | None) -> tuple[list[Kernel], Nest]:
    if isinstance(pattern, str) and not is_source(pattern):
        kernels = parse_pattern(pattern)
        return kernels, lower_chain(as_written(kernels))
    nest = pattern if isinstance(pattern, Nest) else read_nest(pattern, settings)
    kernel = kernel_of_nest(nest)
    return ([kernel] if kernel else []), nest


def is_source(text: str) -> bool:
    """Whether the pattern is Python: a file of it, or lines."""
    return text.endswith(".py") or "for " in text


def read_nest(text: str, settings: Mapping[str, int] | None) -> Nest:
    """The nest of a file of loops, or of lines of Python.

    Raises:
        NestError: no such file, or no affine nest in it.
    """
    if not text.endswith(".py"):
        return nest_from_source(text, None, settings)
    path = Path(text)
    if not path.is_file():
        raise NestError(text, "there is no such file", "give a file of loops, or a pattern such as matmul:512")
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NestError(text, f"it cannot be read: {error}", "give a file of Python loops") from error
    return nest_from_source(source, None, settings, path.name)


def pattern_names() -> list[str]:
    """The ready patterns."""
    return [*PATTERNS, "gather"]


def is_pattern(text: str) -> bool:
    """Whether ``text`` is a pattern, a file of loops or of addresses, rather than a program's target."""
    return is_trace(text) or is_source(text) or text.partition(":")[0] in pattern_names()


locality = Locality()
