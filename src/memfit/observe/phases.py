"""Phases of a run: from marks where there are some, else from the operations themselves.

A mark ``"2 backward"`` begins the backward phase of step 2. ``"2 run"`` begins a step of which only the step is known
(a script, or a step that runs itself): a backward node begins its backward phase, an operation of an optimizer its
optimizer phase, any other operation its forward phase; events outside of operations belong to the phase that runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from memfit.ir.recording import Recording
from memfit.observe.operations import Shown

PHASES = ("build", "forward", "backward", "optimizer", "between", "run")


@dataclass(frozen=True)
class Part:
    """Events ``start`` to ``stop`` (half-open) of one phase of one step."""

    step: int
    phase: str
    start: int
    stop: int


def mark_text(step: int, phase: str) -> str:
    """The text of the mark that begins a phase."""
    return f"{step} {phase}"


def marked_parts(recording: Recording) -> list[Part]:
    """What lies between marks, empty parts left out; what comes before the first mark belongs to the build."""
    starts: list[tuple[int, int, str]] = [(0, -1, "build")]
    for text, event in zip(recording.mark_text, recording.mark_event.tolist(), strict=True):
        step, _, phase = text.partition(" ")
        if phase in PHASES and step.lstrip("-").isdigit():
            starts.append((event, int(step), phase))
    starts.append((len(recording), 0, "end"))
    return [
        Part(step, phase, start, following[0])
        for (start, step, phase), following in pairwise(starts)
        if following[0] > start
    ]


def refined_parts(parts: Sequence[Part], operation: Any, shown: Sequence[Shown]) -> list[Part]:
    """``parts`` with every ``run`` split by its operations. ``operation``: index per event, -1 for none."""
    result: list[Part] = []
    for part in parts:
        if part.phase != "run":
            result.append(part)
            continue
        phase, start = "forward", part.start
        for event in range(part.start, part.stop):
            row = int(operation[event])
            if row < 0:
                continue
            now = "optimizer" if shown[row].optimizer else "backward" if shown[row].backward else "forward"
            if now != phase:
                if event > start:
                    result.append(Part(part.step, phase, start, event))
                phase, start = now, event
        if part.stop > start:
            result.append(Part(part.step, phase, start, part.stop))
    return result
