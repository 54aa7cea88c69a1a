"""The error tree. Every error says what, how much, where, and what to try, and keeps its numbers as fields.

    MemfitError                 exit 2
    |- TargetError              no such file or function, a function that raises, not a Step
    |- MissingFrameworkError    an extra that is not installed
    |- CaptureError             the program cannot be captured as one graph (with the line)
    |- BudgetError              a budget that cannot be kept
    |- DeviceError              unknown device, model on the wrong device
    |- MachineError             a cache or a hierarchy that cannot be, or cannot be measured
    |- NestError                a nest of loops that is not affine, never runs or leaves its arrays
    |- ProblemError             buffers that cannot be planned: overlapping pins, reversed lifetimes, bad sizes
    |- CapacityError            buffers that do not fit the capacity (a budget that cannot be kept)
    |- UndecidedError           neither a placement within a capacity nor a proof was found in time
    |- TraceError               a trace, recipe or table file that is not one
    |- WeightFileError          a file of weights that is not one, was cut short, lies or changed
    |- DataError                a data set that is not one, was cut short, damaged, or does not fit what is asked of it
    |- SegmentError             an access past a segment's limit or against its protection
    |- DomainBudgetError        a tenant asked for more than its budget (a MemoryError too)
    |- OutputError              a file that cannot be written
    |- LeverError               a lever that does not exist or is not allowed
    |- ProgramError             a program that breaks the rules of the intermediate form
    |- PoolError                the CPU pool cannot be put in place, or is there already
    |- LeakError                a watched loop that leaks (a report with findings)
    |- ServiceError             a process that cannot be asked, or cannot watch itself
    `- VerifyError              the fitted program did not do what was promised

``memfit.cli.main`` maps class to exit code, in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memfit.units import SizeError, format_bytes

if TYPE_CHECKING:
    from memfit.ir.leak import LeakReport

__all__ = [
    "BudgetError",
    "CapacityError",
    "CaptureError",
    "DataError",
    "DeviceError",
    "DomainBudgetError",
    "LeakError",
    "LeverError",
    "MachineError",
    "MemfitError",
    "MissingFrameworkError",
    "NestError",
    "OutputError",
    "PoolError",
    "PoolWarning",
    "ProblemError",
    "ProgramError",
    "SegmentError",
    "ServiceError",
    "SizeError",
    "TargetError",
    "TraceError",
    "UndecidedError",
    "VerifyError",
    "WeightFileError",
]  # fmt: skip


class MemfitError(Exception):
    """Base of all errors that memfit raises on purpose."""


class TargetError(MemfitError):
    """A target that names no program. ``target`` as written, ``why``, ``hint``: what to try."""

    def __init__(self, target: str, why: str, hint: str = "") -> None:
        super().__init__(f"cannot use target {target!r}: {why}" + (f"; {hint}" if hint else ""))
        self.target, self.why, self.hint = target, why, hint


@contextmanager
def target_named(name: str) -> Iterator[None]:
    """Inside, an error about a step that knows no name (``"step"``) becomes one about the target ``name``."""
    try:
        yield
    except TargetError as error:
        if error.target != "step" or name == "step":
            raise
        raise TargetError(name, error.why, error.hint) from error


class MissingFrameworkError(MemfitError):
    """A framework that is not installed. ``framework``, ``extra``: the extra of memfit that brings it."""

    def __init__(self, framework: str, extra: str) -> None:
        super().__init__(f"{framework} is not installed; install it with: pip install 'memfit[{extra}]'")
        self.framework, self.extra = framework, extra


class CaptureError(MemfitError):
    """The program cannot be captured as one graph. ``why``, ``where`` (``file:line`` or empty), ``hint``."""

    def __init__(self, why: str, where: str = "", hint: str = "") -> None:
        super().__init__(
            "cannot capture the step as one graph: "
            + why
            + (f", at {where}" if where else "")
            + (f"; {hint}" if hint else "")
        )
        self.why, self.where, self.hint = why, where, hint


class BudgetError(MemfitError):
    """A budget that cannot be kept. ``needed``, ``allowed`` (bytes), ``where``: what stands in the way, ``hint``."""

    def __init__(self, needed: int, allowed: int, where: str, hint: str = "") -> None:
        super().__init__(
            f"budget {format_bytes(allowed)} ({allowed} bytes) cannot be kept: the smallest feasible is "
            f"{format_bytes(needed)} ({needed} bytes), because of {where}" + (f"; {hint}" if hint else "")
        )
        self.needed, self.allowed, self.where, self.hint = needed, allowed, where, hint


class DeviceError(MemfitError):
    """A device that is not known or not here. ``device``, ``why``."""

    def __init__(self, device: str, why: str) -> None:
        super().__init__(f"device {device!r}: {why}")
        self.device, self.why = device, why


class MachineError(MemfitError):
    """A cache that cannot be, or a machine that cannot be described. ``where``: level or file; ``why``; ``hint``."""

    def __init__(self, where: str, why: str, hint: str = "") -> None:
        super().__init__(f"cannot describe the machine, {where}: {why}" + (f"; {hint}" if hint else ""))
        self.where, self.why, self.hint = where, why, hint


class NestError(MemfitError):
    """A pattern of accesses that cannot be simulated. ``where``: its name or line; ``why``; ``hint``."""

    def __init__(self, where: str, why: str, hint: str = "") -> None:
        super().__init__(f"cannot simulate {where}: {why}" + (f"; {hint}" if hint else ""))
        self.where, self.why, self.hint = where, why, hint


class ProblemError(MemfitError):
    """Buffers that cannot be planned. ``where``: file, line or buffer; ``why``; ``hint``: what to try."""

    def __init__(self, where: str, why: str, hint: str = "") -> None:
        super().__init__(f"cannot plan {where}: {why}" + (f"; {hint}" if hint else ""))
        self.where, self.why, self.hint = where, why, hint


class CapacityError(MemfitError):
    """Buffers that do not fit. ``capacity``, ``needed`` (bytes, a proved lower bound); ``infeasible``: ids that cannot fit."""

    def __init__(self, capacity: int, needed: int, infeasible: tuple[str, ...], where: str) -> None:
        shown = ", ".join(infeasible[:8]) + (f" and {len(infeasible) - 8} more" if len(infeasible) > 8 else "")
        super().__init__(
            f"{where} does not fit {format_bytes(capacity)} ({capacity} bytes): at least {format_bytes(needed)} ({needed}) "
            f"are needed; {'this buffer' if len(infeasible) == 1 else f'these {len(infeasible)} buffers'} alone cannot fit: "
            f"{shown}; raise the capacity or shrink one of them"
        )
        self.capacity, self.needed, self.infeasible, self.where = capacity, needed, infeasible, where


class UndecidedError(MemfitError):
    """Neither a placement within the capacity nor a proof that there is none. Bytes: ``capacity``, ``peak`` reached,
    ``bound`` proved; ``seconds`` of CPU time spent.
    """

    def __init__(self, capacity: int, peak: int, bound: int, seconds: float) -> None:
        super().__init__(
            f"not decided within the time limit ({seconds:.1f} s of CPU time) whether the buffers fit {capacity} bytes: "
            f"the best placement found needs {format_bytes(peak)} ({peak} bytes), at least {bound} are proved to be needed; "
            "raise the time limit or the capacity"
        )
        self.capacity, self.peak, self.bound, self.seconds = capacity, peak, bound, seconds


class TraceError(MemfitError):
    """A file that is not what it should be. ``path``, ``why``."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"cannot read {path}: {why}")
        self.path, self.why = path, why


class WeightFileError(MemfitError):
    """A file of weights that cannot be used. ``path``, ``why``, ``hint``: what to try."""

    def __init__(self, path: str, why: str, hint: str = "write or copy the file again") -> None:
        super().__init__(f"cannot use the weights in {path}: {why}" + (f"; {hint}" if hint else ""))
        self.path, self.why, self.hint = path, why, hint


class DataError(MemfitError):
    """Data that cannot be used. ``path``; ``why``; ``offset``: byte of the file where it shows, or None; ``hint``."""

    def __init__(self, path: str, why: str, offset: int | None = None, hint: str = "") -> None:
        at = "" if offset is None else f" at byte {offset}"
        super().__init__(f"cannot use {path}{at}: {why}" + (f"; {hint}" if hint else ""))
        self.path, self.why, self.offset, self.hint = path, why, offset, hint


class SegmentError(MemfitError):
    """An access that a segment does not allow. ``segment``: its name; ``offset``: bytes from its base; ``access``: read,
    write, or what else was tried; ``why``; ``hint``.
    """

    def __init__(self, segment: str, offset: int, access: str, why: str, hint: str = "") -> None:
        super().__init__(f"{access} at offset {offset} of segment {segment!r}: {why}" + (f"; {hint}" if hint else ""))
        self.segment, self.offset, self.access, self.why, self.hint = segment, offset, access, why, hint


class DomainBudgetError(MemfitError, MemoryError):
    """A charge over a domain's budget. ``name`` of the domain; bytes: ``needed``, ``used`` already, ``budget``."""

    def __init__(self, name: str, needed: int, used: int, budget: int) -> None:
        super().__init__(
            f"domain {name!r} needs {format_bytes(needed)} ({needed} bytes) more and has {format_bytes(max(budget - used, 0))}"
            f" ({budget - used}) left of its budget of {format_bytes(budget)} ({budget}); free something of it, or raise "
            "its budget"
        )
        self.name, self.needed, self.used, self.budget = name, needed, used, budget


class OutputError(MemfitError):
    """A file that cannot be written. ``path``, ``why``."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"cannot write {path}: {why}; choose a path in a folder that exists and can be written")
        self.path, self.why = path, why


class LeverError(MemfitError):
    """A lever that does not exist or is not allowed. ``lever``; ``known``: the ones there are; ``numerics`` of it."""

    def __init__(self, lever: str, known: tuple[str, ...], numerics: str = "") -> None:
        unknown = f"there is none of that name; known: {', '.join(known)}"
        why = f"it is {numerics}; allow that class first" if numerics else unknown
        super().__init__(f"cannot use lever {lever!r}: {why}")
        self.lever, self.known, self.numerics = lever, known, numerics


class ProgramError(MemfitError):
    """A program that breaks a rule of the intermediate form. ``where``: which program, after which pass; ``why``."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where} is not well formed: {why}")
        self.where, self.why = where, why


class PoolError(MemfitError):
    """The CPU pool cannot do what was asked. ``why``, ``hint``: what to try."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(f"memfit.pool: {why}" + (f"; {hint}" if hint else ""))
        self.why, self.hint = why, hint


class PoolWarning(UserWarning):
    """The CPU pool does less than it could, or leaves something behind; nothing is wrong."""


class VerifyError(MemfitError):
    """The fitted program did not do what was promised. ``what`` differs, ``expected``, ``found``."""

    def __init__(self, what: str, expected: object, found: object) -> None:
        super().__init__(f"verification failed: {what}: expected {expected}, found {found}")
        self.what, self.expected, self.found = what, expected, found


class LeakError(MemfitError):
    """A watched loop leaks. ``report``: the whole verdict."""

    def __init__(self, report: LeakReport) -> None:
        first = report.findings[0] if report.findings else None
        what = (
            f"{first.holder} keeps {first.bytes_per_step} bytes more at every step; {first.fix}" if first else "unknown"
        )
        super().__init__(f"memory leaks over {report.steps} steps: {what}")
        self.report = report


class ServiceError(MemfitError):
    """A process that cannot be asked for its leaks. ``pid``, ``why``, ``hint``."""

    def __init__(self, pid: int, why: str, hint: str = "") -> None:
        super().__init__(f"process {pid}: {why}" + (f"; {hint}" if hint else ""))
        self.pid, self.why, self.hint = pid, why, hint
