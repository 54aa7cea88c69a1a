"""What `lint` hands to those who draw it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LintFinding:
    """One finding.

    Attributes:
        rule: its name.
        line: ``file:line``, or empty where no line is known.
        nbytes: projected: by how much the peak falls with the advice followed; where the peak lies elsewhere, ``held``.
        held: projected bytes that rest for nothing, the most at one time.
        at_peak: whether the peak falls.
        a_step: ``held`` is added by each step.
        module: its name, or empty.
        what: what is found, in words.
        fix: the advice.
    """

    rule: str
    line: str
    nbytes: int
    held: int
    at_peak: bool
    a_step: bool
    module: str
    what: str
    fix: str

    def to_json(self) -> dict[str, Any]:
        """The object of --json."""
        return {
            "rule": self.rule, "line": self.line, "bytes": self.nbytes, "fix": self.fix, "what": self.what,
            "module": self.module, "held": self.held, "at_peak": self.at_peak, "a_step": self.a_step,
        }  # fmt: skip


@dataclass(frozen=True)
class LintReport:
    """All findings of a step; ``peak`` (live) and ``saved`` (by graphs, for backward) are projected bytes."""

    target: str
    findings: tuple[LintFinding, ...]
    peak: int
    saved: int
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object of --json."""
        return {
            "target": self.target, "findings": [one.to_json() for one in self.findings],
            "peak": {"live": self.peak}, "saved": self.saved, "seconds": self.seconds, "notes": list(self.notes),
        }  # fmt: skip
