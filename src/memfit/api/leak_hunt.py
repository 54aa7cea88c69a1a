"""One hunt for leaks in this process: a watcher, the judgements it came to, and the report of both."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

from memfit.api.leak_probes import probes_now
from memfit.ir.leak import Finding, LeakReport
from memfit.observe.leak_judge import Judgement, judge
from memfit.observe.leak_sources import process_slope
from memfit.observe.watcher import Watcher

LEAST_JUDGED = 13
"""Steps before a judgement is tried."""
_POINTS = 400
_LONGEST_LINE = 100


def _alone() -> bool:
    """Whether no other thread of the program's was at work meanwhile: what was added since is the judgement's own."""
    return all(
        thread is threading.current_thread() or thread.name.startswith("memfit") for thread in threading.enumerate()
    )


def _written_at(findings: Sequence[Finding]) -> dict[str, str]:
    """The source lines at the places that findings name, where the files are there to be read."""
    found = {}
    for at in {at for finding in findings for at in (finding.birth, finding.grown_at) if at}:
        path, _, line = at.rpartition(":")
        with contextlib.suppress(OSError, ValueError, StopIteration), open(path, "rb") as file:
            text = next(itertools.islice(file, int(line) - 1, None)).decode(errors="replace").strip()
            found[at] = text if len(text) <= _LONGEST_LINE else text[: _LONGEST_LINE - 1] + "…"
    return found


class Hunt:
    """Watches from now on. ``target``: what to call the program; ``closely``: also trace a few steps."""

    def __init__(self, target: str, *, closely: bool = True, share: float = 0.02, patient: bool = False) -> None:
        self.target = target
        self.watcher = Watcher(probes_now, closely=closely, share=share, patient=patient)
        self.judgement: Judgement | None = None
        self.on_the_way: Judgement | None = None
        self.notes: list[str] = []
        self.ended = ""
        self.began = time.perf_counter()
        self.judging = 0.0
        self.after: Callable[[], None] = lambda: None
        self.pid = os.getpid()

    def judge(self, *, final: bool = True) -> None:
        """Come to a judgement now; a fault of the judgement itself becomes a note."""
        began, before = time.perf_counter(), self.watcher.meter.read()
        self.watcher.active = False
        try:
            own = (self.watcher, self, self.watcher.tracked, vars(self.watcher), vars(self), self.watcher.sources)
            found = judge(self.watcher, skip=[id(thing) for thing in own], final=final)
            if self.judgement is None or found.leaking is not None or found.source != self.judgement.source:
                self.judgement = found
        except Exception as error:
            self.notes.append(f"one judgement failed ({type(error).__name__}: {error}); please report it")
            if os.environ.get("MEMFIT_DEBUG"):
                traceback.print_exc()
            self._fall_back()
        finally:
            if _alone():
                self.watcher.meter.exclude(before)
            self.watcher.active = not self.watcher.faults
            self.judging += time.perf_counter() - began
            self.watcher.lost += time.perf_counter() - began
        self.after()

    def _fall_back(self) -> None:
        """What the samples alone tell: a later judgement may come when what leaks has gone with its function."""
        source = self.watcher.leader()
        slope = process_slope(source) if source is not None else None
        if source is not None and slope is not None and slope.growing and self.judgement is None:
            self.judgement = Judgement(
                True, [], [], slope, source.name, source.count, ["memory grows; who holds it could not be looked for"]
            )
            self.watcher.judged_at[source.name] = source.count

    def judge_if_new(self) -> None:
        """Judge unless the last judgement saw nearly all of the steps."""
        leader = self.watcher.leader()
        if leader is None:
            return
        last = self.watcher.judged_at.get(leader.name, 0)
        if self.judgement is None or self.judgement.source != leader.name or leader.count >= 1.25 * last:
            self.judge()

    def judge_on_the_way(self) -> None:
        """Who holds what grows by now, for a program that may be killed; any later judgement takes its place.

        Nothing is collected or cleared for it, so what only such a trial could tell (native memory) is not said.
        """
        known, judged = self.judgement, dict(self.watcher.judged_at)
        self.judge(final=False)
        found, self.judgement = self.judgement, known
        self.watcher.judged_at = judged
        if found is not None and found is not known:
            findings = [one for one in found.findings if one.kind not in ("native", "unknown")]
            note = f"judged at step {found.steps}, while it ran"
            self.on_the_way = replace(found, findings=findings, notes=[*found.notes, note]) if findings else None
        self.after()

    def report(self) -> LeakReport:
        """The account as it stands."""
        source = self.watcher.leader()
        found = self.judgement or self.on_the_way
        curves: dict[str, list[tuple[int, int]]] = {}
        slope, steps, name = None, 0, ""
        if source is not None:
            slope, steps, name = process_slope(source), source.count, source.name
            samples = source.samples
            thin = max(1, len(samples.step) // _POINTS)
            for label, column in (("heap", samples.heap), ("python", samples.python), ("resident", samples.resident)):
                if any(column):
                    curves[label] = list(zip(samples.step[::thin], column[::thin], strict=True))
            workers = [points for points in self.watcher.workers.values() if len(points) > 2]
            if workers:
                curves["workers"] = max(workers, key=len)[:_POINTS]
        leaking = found.leaking if found is not None else None
        notes = (*self.notes, *self.watcher.faults, *(found.notes if found is not None else ()))
        if found is None and not any("not enough" in note for note in notes):
            notes = (*notes, f"not enough steps: {steps} were seen, at least {LEAST_JUDGED} are needed")
        known = slope is not None and slope.growing is not None
        return LeakReport(
            self.target, leaking, tuple(found.findings) if found else (), steps, name,
            round(slope.slope) if slope is not None and known else 0,
            (round(slope.low), round(slope.high)) if slope is not None and known else (0, 0),
            time.perf_counter() - self.began - self.judging, self.watcher.own_seconds, self.judging,
            tuple(found.quiet) if found else (), curves, notes, self.ended, _written_at(found.findings if found else ()),
        )  # fmt: skip
