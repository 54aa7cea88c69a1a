"""What a leak hunt answers: whether memory grows without bound, and for each thing that grows who holds it.

Plain data between ``observe``, which finds, and ``report``, which draws. Bytes are *measured*; a step is whatever
repeats in the program (``step_source`` says what was taken).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Point = tuple[int, int]
"""(step, bytes or count) of a curve."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that grows.

    ``kind``: a word of ``observe.leak_kinds``; ``what``: the objects that pile up; ``holder``: the first name a person
    knows; ``chain``: from that name down to one of the objects; ``birth``: ``file:line`` that made them; ``grown_at``:
    the line that put them there; ``interval``: lowest and highest ``bytes_per_step`` the samples allow; ``points``: the
    curve of what grows.
    """

    kind: str
    what: str
    holder: str
    birth: str
    bytes_per_step: int
    objects_per_step: float
    fix: str
    grown_at: str = ""
    chain: tuple[str, ...] = ()
    interval: tuple[int, int] = (0, 0)
    points: tuple[Point, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields but the curve."""
        return {
            "kind": self.kind, "holder": self.holder, "birth": self.birth or None,
            "bytes_per_step": self.bytes_per_step, "objects_per_step": round(self.objects_per_step, 3), "fix": self.fix,
            "what": self.what, "grown_at": self.grown_at or None, "chain": list(self.chain),
            "interval": list(self.interval),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class LeakReport:
    """``leaking``: None where too few steps ran to tell. ``quiet``: what grew and is no leak, with the reason.

    ``curves``: name (``heap``, ``python``, ``resident``, ``workers``) -> points; ``seconds``: of the program;
    ``verdict_seconds``: beyond it; ``own_seconds``: spent inside it for watching; ``lines``: what is written at the places that
    findings name.
    """

    target: str
    leaking: bool | None
    findings: tuple[Finding, ...] = ()
    steps: int = 0
    step_source: str = ""
    bytes_per_step: int = 0
    interval: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    own_seconds: float = 0.0
    verdict_seconds: float = 0.0
    quiet: tuple[Mapping[str, str], ...] = ()
    curves: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ended: str = ""
    lines: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object of ``--json``: the promised keys and more."""
        return {
            "leaking": self.leaking, "findings": [finding.to_json() for finding in self.findings], "target": self.target,
            "steps": self.steps, "step_source": self.step_source, "bytes_per_step": self.bytes_per_step,
            "interval": list(self.interval), "seconds": self.seconds, "own_seconds": self.own_seconds,
            "verdict_seconds": self.verdict_seconds, "quiet": [dict(row) for row in self.quiet],
            "curves": {name: [list(point) for point in points] for name, points in self.curves.items()},
            "notes": list(self.notes), "ended": self.ended, "lines": dict(self.lines),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LeakReport:
        """The report that ``to_json`` wrote; curves of findings are gone.

        Raises:
            KeyError, TypeError, ValueError: the object is not one.
        """
        findings = tuple(
            Finding(
                str(row["kind"]), str(row.get("what", "")), str(row["holder"]), str(row.get("birth") or ""),
                int(row["bytes_per_step"]), float(row["objects_per_step"]), str(row["fix"]),
                str(row.get("grown_at") or ""), tuple(map(str, row.get("chain", ()))),
                tuple(map(int, row.get("interval", (0, 0)))),  # type: ignore[arg-type]
            )
            for row in data["findings"]
        )  # fmt: skip
        leaking = data["leaking"]
        if leaking not in (True, False, None):
            raise ValueError("leaking is true, false or null")
        curves = {str(name): [(int(a), int(b)) for a, b in points] for name, points in data.get("curves", {}).items()}
        low, high = data.get("interval", (0, 0))
        return cls(
            str(data["target"]), leaking, findings, int(data.get("steps", 0)), str(data.get("step_source", "")),
            int(data.get("bytes_per_step", 0)), (int(low), int(high)), float(data.get("seconds", 0)),
            float(data.get("own_seconds", 0)), float(data.get("verdict_seconds", 0)),
            tuple({str(k): str(v) for k, v in row.items()} for row in data.get("quiet", ())), curves,
            tuple(map(str, data.get("notes", ()))), str(data.get("ended", "")),
            {str(at): str(text) for at, text in data.get("lines", {}).items()},
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorkerAccount:
    """What a worker process found out about itself: the line that makes what stays, the name that gets longer; "" unknown."""

    birth: str
    holder: str


@dataclass(frozen=True)
class Stuck:
    """Objects that keep themselves alive: how many ``objects``, the ``holder`` in words, one of them as ``example``."""

    kind: str
    what: str
    holder: str
    fix: str
    example: Any
    objects: int
    birth: str = ""


@dataclass(frozen=True, slots=True)
class Register:
    """A list that compiled code keeps and that Python can only count: its ``holder`` in words, ``entries`` now."""

    holder: str
    kind: str
    entries: int
    fix: str
