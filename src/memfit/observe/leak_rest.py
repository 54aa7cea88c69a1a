"""Growth that no name in Python explains: cycles, what C++ keeps, worker processes, native memory.

In the order in which they can be told for certain. Native memory is named last, by what is left: malloc hands out more
at every step, and Python's objects, tensors, cycles and the caches that frameworks keep by design do not account for it.
The line is the one at which the process grew in the traced steps (``LineWindow``).
"""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from memfit.ir.leak import Finding
from memfit.observe import leak_cycles, leak_leaves, leak_piles
from memfit.observe.held_bytes import held_by
from memfit.observe.leak_curve import BLOCKS, WARM_SHARE, Slope, slope_of
from memfit.observe.leak_meter import process_name, trim

if TYPE_CHECKING:
    from memfit.observe.leak_judge import _Judge
    from memfit.observe.watcher import Watcher

_WORKER_FLOOR = 16 << 10
_WITH_GRAPH = ("graph", "gradient_graph", "context", "compile")
"""Kinds whose bytes lie in C++ and are estimated: what they leave unexplained is theirs."""
_LONG_ENOUGH = 200


def explain_rest(court: _Judge, final: bool, notes: list[str]) -> None:
    """Add findings for what is not explained yet."""
    _workers(court)
    if not court.slope.growing:
        return
    if court.left() > 0:
        _stuck(court)
    if court.left() > 0:
        _compiled(court)
    if court.left() > 0:
        leak_leaves.grown_leaves(court, court.line_of_growth()[0])
    leak_piles.orphans(court, known_only=True)
    if court.left() > 0:
        _registered(court)
    leak_piles.nameless(court)
    leak_piles.orphans(court, known_only=False)
    if court.left() > 0 and not any(finding.kind in _WITH_GRAPH for finding in court.found):
        _native(court, final, notes)


def _span(court: _Judge) -> int:
    return max(1, court.steps(court.looks[-1]) - court.steps(court.looks[0]))


def _stuck(court: _Judge) -> None:
    for found in court.probes.stuck(court.looks[0].address):
        if found.kind == "context" and found.objects / _span(court) < 0.2:
            continue
        held = held_by([found.example], court.looks[0].address, court.probes, court.watcher.shared, ())
        left = court.left()
        if left <= 0:
            return
        rate = found.objects / _span(court) if found.kind == "context" else 1.0
        nbytes = min(left, held.nbytes * rate) if found.kind == "context" else left
        window = court.watcher.birth_window
        births = window.of_kind.get(type(found.example).__qualname__, Counter()) if window is not None else Counter()
        birth = births.most_common(1)[0][0] if births else found.birth
        court.found.append(Finding(
            found.kind, found.what, found.holder, birth, round(max(nbytes, left if held.nbytes else 0)), rate, found.fix,
            "", (found.holder,), (round(nbytes), round(left)),
        ))  # fmt: skip


def explain_cycles(court: _Judge) -> None:
    """Take the garbage that a collection freed off the growth, as a finding or as no leak."""
    if not court.slope.growing:
        return
    garbage = court.garbage
    if garbage is None:
        return
    left = court.left()
    if left <= 0:
        return
    per_step = min(garbage.nbytes / _span(court), 1.2 * left)
    first, last = court.looks[0].collections, court.looks[-1].collections
    since = [after - before for before, after in zip(first, last, strict=True)]
    over = bool(sum(since[:2])) and _collected(court, garbage)
    if per_step < 0.3 * left or garbage.objects < _span(court) / 2:
        if over:
            court.quiet.append({"what": "objects in reference cycles", "why": "the collector has freed most of them"})
            court.slope = replace(court.slope, growing=False)
        return
    rate = garbage.objects / _span(court)
    due = leak_cycles.patience(per_step, rate, since, _span(court))
    if due < max(leak_cycles.PATIENCE_BYTES, court.source.samples.resident[-1] // 4):
        court.quiet.append({
            "what": f"{garbage.objects} objects in reference cycles ({garbage.cycle})",
            "why": "the collector frees them before they come to much",
        })  # fmt: skip
        court.slope = replace(court.slope, growing=False) if over else _without(court, per_step)
        return
    window = court.watcher.birth_window
    births = window.of_kind.get(garbage.element, Counter()) if window is not None else Counter()
    holder = f"a reference cycle: {garbage.cycle}" if garbage.cycle else "a reference cycle"
    court.found.append(Finding(
        "cycle", ", ".join(f"{number} {name}" for name, number in garbage.types.most_common(4)), holder,
        births.most_common(1)[0][0] if births else "", round(per_step), rate,
        "break the cycle when the object is done with (set one of its references to None, or make it a weakref), or call "
        "gc.collect() every so many steps" + ("" if gc.isenabled() else "; the collector is switched off here"),
        "", (holder,), (round(per_step), round(per_step)),
    ))  # fmt: skip


def _collected(court: _Judge, garbage: leak_cycles.Garbage) -> bool:
    """Whether little of what had grown is left, where the collector came by while the steps ran.

    Such a curve rises from one collection to the next; how far it has come when the steps end is chance.
    """
    if not gc.isenabled() or not court.ends_inside:
        return False
    samples = court.source.samples
    warm = int(np.searchsorted(samples.step, samples.step[0] + WARM_SHARE * (samples.step[-1] - samples.step[0])))
    held = np.add(samples.heap, samples.python)
    steps = samples.step[-1] - samples.step[warm]
    rest = float(held[-1] - garbage.freed - held[warm : warm + max(1, (len(held) - warm) // BLOCKS)].min())
    return rest < 0.3 * court.slope.slope * max(1, steps)


def _without(court: _Judge, per_step: float) -> Slope:
    rest = court.slope.slope - per_step
    return replace(court.slope, slope=rest, growing=bool(court.slope.growing and rest >= 0.3 * court.slope.slope))


def _compiled(court: _Judge) -> None:
    for name, number in sorted(court.probes.compiled().items(), key=lambda row: -row[1]):
        if number >= max(3, 0.2 * _span(court)):
            left = court.left()
            court.found.append(Finding(
                "compile", f"{name.partition(' (')[0]} was compiled {number} times", name,
                name.partition("(")[2].rstrip(")"), round(left), number / _span(court),
                "compile once, outside of the loop, and call it with values of the same kind (tensors rather than Python "
                "numbers, few shapes: mark_dynamic, dynamic=True)", "", (name,), (round(left), round(left)),
            ))  # fmt: skip
            return


def _registered(court: _Judge) -> None:
    for register, rate in leak_piles.rising_registers(court)[:1]:
        left = court.left()
        line, *_ = court.line_of_growth()
        court.found.append(Finding(
            register.kind, f"{rate:.3g} more entries a step in a list that only compiled code sees", register.holder,
            line, round(left), rate, register.fix, line, (register.holder,),
            (round(court.slope.low), round(court.slope.high)),
        ))  # fmt: skip


def _native(court: _Judge, final: bool, notes: list[str]) -> None:
    left = court.left()
    if court.source.kind == "time" and court.slope.steps < _LONG_ENOUGH:
        return  # requests overlap the moments at which a service is sampled: a short rise tells nothing
    if final:
        before = court.watcher.meter.read()
        cleared = court.probes.clear_caches()
        after = court.watcher.meter.read()
        if cleared and before.heap - after.heap >= 0.4 * left * _span(court):
            court.quiet.append(
                {"what": cleared, "why": f"gave back {before.heap - after.heap} bytes when it was emptied"}
            )
            return
        if not court.watcher.meter.knows_heap:
            resident = court.watcher.meter.read().resident
            if trim() and resident - court.watcher.meter.read().resident >= 0.5 * left * _span(court):
                court.quiet.append({"what": "malloc", "why": "gave back what it had kept"})
                return
    line, share, function, (owner, call) = court.line_of_growth()
    known = court.probes.recording()
    if known is None and _behind_wrappers(court, line, left):
        return
    if known is not None:
        holder, what, fix = known.holder, known.what, known.fix
    elif share >= 0.3 * left:
        inside = f" in {function}()" if function not in ("", "<module>") else ""
        of = "" if owner == call else f" of {owner}"
        holder = f"{call}{of}{inside}" if call else f"native memory taken at {line}{inside}"
        what = "memory that compiled code takes from malloc, outside of Python's objects"
        fix = (
            f"{call} at {line} leaves memory in its {owner}: remove there what is done with, close it when it is, or, where it "
            "hands out memory, call what frees it"
            if of
            else f"the call at {line} takes memory that is never given back: call the library's free, clear or close function "
            "for it (of an object made in C or through ctypes: release the reference that was taken, Py_DECREF)"
        )
    else:
        line, holder, what = "", "unknown: native memory", "memory that no Python object, tensor or cycle accounts for"
        fix = "run it under memray (memray run --native) to see which library's call takes it"
        notes.append("growth without a holder: the traced steps did not show the line")
    court.found.append(Finding(
        "native", what, holder, line, round(left), 0.0, fix, line, (holder,),
        (round(court.slope.low), round(court.slope.high)),
    ))  # fmt: skip


def _behind_wrappers(court: _Judge, line: str, left: float) -> bool:
    """Charge memory that Python does not see to objects of compiled types that pile up, made on the line that takes it."""
    for found, held in sorted(court.wrappers, key=lambda row: -row[0].objects_per_step):
        if line and found.birth == line:
            kinds = ", ".join(name for name, _ in held.hidden.most_common(2))
            court.found = [one for one in court.found if one.holder != found.holder]
            court.found.append(replace(
                found, what=f"{found.what}; {kinds} objects hold memory outside of Python", bytes_per_step=round(left),
                interval=(round(court.slope.low), round(court.slope.high)), grown_at=found.grown_at or line,
            ))  # fmt: skip
            return True
    return False


def workers_grow(watcher: Watcher) -> dict[int, Slope]:
    """Worker processes that hold more from step to step, by their id."""
    found = {
        pid: slope_of([step for step, _ in points], [float(nbytes) for _, nbytes in points], _WORKER_FLOOR)
        for pid, points in watcher.workers.items()
    }
    return {pid: slope for pid, slope in found.items() if slope.growing}


def _workers(court: _Judge) -> None:
    for pid, slope in workers_grow(court.watcher).items():
        points = court.watcher.workers[pid]
        name, task = process_name(pid), court.probes.worker(pid)
        worker = f"worker process {pid}" + (f", {task}" if task else "")
        account = court.watcher.account_of(pid)
        birth = account.birth if account is not None else ""
        holder = f"{account.holder}, in {worker}" if account is not None and account.holder else ""
        fix = (
            f"{account.holder} grows in the worker and stays from task to task: bound it, or clear it when a task is done"
            if account is not None and account.holder
            else "data that workers only read is copied page by page, because reading a Python object writes its reference "
            "count: keep it in one NumPy array or tensor; what a worker keeps itself, bound it there"
        )
        court.found.append(Finding(
            "worker", f"worker process {pid} ({task or name[:40]})", holder or court.probes.worker_data() or worker, birth,
            round(slope.slope), 0.0, fix, birth, (name,), (round(slope.low), round(slope.high)), tuple(points),
        ))  # fmt: skip
