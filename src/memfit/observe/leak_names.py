"""Names whose value is replaced by a larger one at every step: a text added to, a tensor concatenated, a sum with its graph.

Nothing grows in place then; what tells is the size under one name from look to look (``named_sizes``).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from memfit.ir.leak import Finding
from memfit.observe.held_bytes import held_by, newest
from memfit.observe.leak_kinds import Clue, kind_and_fix
from memfit.observe.leak_sources import FLOOR
from memfit.observe.leak_suspects import levels_off
from memfit.observe.named_values import named_values

if TYPE_CHECKING:
    from memfit.observe.leak_judge import _Judge

_SAMPLE = 12
_MOST_KINDS = 10
_SHARE = 0.3


def replaced(court: _Judge) -> None:
    """Add findings for names under which the size rose at every look."""
    if not court.slope.growing:
        return
    last = court.looks[-1].named
    rows = []
    for name, size in last.items():
        points = [(court.steps(look), look.named[name]) for look in court.looks if name in look.named]
        gained = size - points[0][1]
        if len(points) < 3 or gained <= 0 or levels_off(points) or any(b[1] < a[1] for a, b in pairwise(points)):
            continue
        rows.append((gained / max(1, points[-1][0] - points[0][0]), name, points))
    values = dict(named_values({name for _, name, _ in rows}))
    for rate, name, points in sorted(rows, key=lambda row: -row[0])[:_MOST_KINDS]:
        value = values.get(name)
        if (
            value is None
            or any(name == finding.holder for finding in court.found)
            or id(value) in court.flagged | court.excused
        ):
            continue
        text = isinstance(value, (str, bytes, bytearray))
        framework = court.probes.size(value) is not None
        held = held_by(
            [value] if text or framework else newest(value, _SAMPLE), court.looks[0].address, court.probes,
            court.watcher.shared, (),
        )  # fmt: skip
        nbytes = (
            max(rate, held.nbytes / court.last_step if framework else 0) if text or framework else rate * held.nbytes
        )
        if nbytes < FLOOR or (not text and not framework and court.explained(nbytes)):
            continue
        if held.facts["graph"]:
            clue = Clue(name, "", type(value).__qualname__, held)
            kind, fix = kind_and_fix(clue)
            fix = f"{name} carries the graph of all earlier steps: " + (
                "add loss.item() instead of the loss"
                if held.facts["scalar graph"]
                else f"{name} = {name.partition(' in ')[0]}.detach() before it is used again"
            )
            what = "one graph that gets longer at every step"
        else:
            kind, what = "replaced", f"{type(value).__qualname__} that is replaced by a larger one"
            fix = (
                f"{name.partition(' in ')[0]} gets longer at every step: keep a running result, or write the parts out"
            )
        line, share, *_ = court.line_of_growth()
        line = line if share >= _SHARE * court.slope.slope else ""
        window = court.watcher.birth_window
        births = window.of_name.get(name) if window is not None else None
        birth = births.most_common(1)[0][0] if births else line
        court.found.append(Finding(
            kind, what, name, birth, round(nbytes), rate if not (text or framework) else held.objects / max(1, court.last_step),
            fix, line, (name,), (round(nbytes), round(nbytes)),
            tuple((a, b) for a, b in points),
        ))  # fmt: skip
