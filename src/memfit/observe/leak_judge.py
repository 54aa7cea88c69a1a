"""The judgement: does the program leak, what grows, who holds it, what to do.

    slope      does what the process holds grow without levelling off (``leak_curve``)
    suspects   containers, caches, names and types that grow (``leak_suspects``)
    holders    the chain to each from a name that a person knows (``retention``), those of one pattern together
    weight     what one more element keeps alive (``held_bytes``); below ``FLOOR`` bytes a step nothing is said
    excuses    bounded by its own code (``bounded``), levelled off, or the process does not grow with it
    the rest   growth that no holder in Python explains: cycles, contexts of Functions, workers, native memory

Cost: a few censuses and one walk over the heap, 1 to 3 s for a process with torch, and only where something grows.
"""

from __future__ import annotations

import gc
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.ma

from memfit.ir.leak import Finding
from memfit.machine.own_code import place
from memfit.observe import leak_cycles, leak_leaves, leak_names, leak_piles, leak_rest
from memfit.observe.bounded import code_bounds, own_bound
from memfit.observe.chain_words import holder_words, pattern
from memfit.observe.compiled_containers import CACHE_TYPE, is_compiled_container
from memfit.observe.held_bytes import Held, held_by, newest
from memfit.observe.leak_census import Look, rising_types
from memfit.observe.leak_curve import LEAST_STEPS, Slope, slope_of
from memfit.observe.leak_details import (
    container_name,
    element_name,
    interval,
    owner_of,
    settled,
    slot_bytes,
    steps_of,
    what,
)
from memfit.observe.leak_kinds import Clue, kind_and_fix
from memfit.observe.leak_meter import BLOCK_BYTES
from memfit.observe.leak_sources import FLOOR, Source, process_slope
from memfit.observe.leak_suspects import (
    Group,
    Suspect,
    growing_caches,
    growing_containers,
    growing_tables,
    levels_off,
    summed,
)
from memfit.observe.own_objects import own_addresses
from memfit.observe.probes import Probes
from memfit.observe.retention import Chain, Retention
from memfit.observe.watcher import Watcher, users_frame
from memfit.runtime.living import survey

_SAMPLE = 12
_MOST_TARGETS = 400
_MOST_KINDS = 10
_FEW, _UNLIKE = 4, 1.5
_EXPLAINED = 0.5
_UNEXPLAINED = 2048
"""Bytes a step below which growth without a holder in Python is not worth a finding."""


@dataclass
class Judgement:
    """What was found at one moment of the program."""

    leaking: bool | None
    findings: list[Finding]
    quiet: list[dict[str, str]]
    slope: Slope
    source: str
    steps: int
    notes: list[str] = field(default_factory=list)


class _Judge:
    def __init__(self, watcher: Watcher, source: Source, skip: Sequence[int], final: bool) -> None:
        self.watcher, self.source = watcher, source
        self.probes: Probes = watcher.probes()
        self.slope = process_slope(source)
        self.garbage: leak_cycles.Garbage | None = None
        if final and self.slope.growing:  # before the look and the walks, whose own objects would be among it
            self.garbage = leak_cycles.collect(watcher.meter, self.probes.facts, watcher.looks[0].address)
        before = watcher.meter.read()
        watcher.look()
        watcher.meter.exclude(before)
        self.looks = [look for look in watcher.looks if source.name in look.counts]
        if len(self.looks) < 3 and self.looks[0] is not watcher.looks[0]:
            self.looks.insert(0, watcher.looks[0])
        self.last_step = source.count
        self.quiet: list[dict[str, str]] = []
        self.skip = skip
        self.ends_inside = users_frame() is not None
        """Whether the function with the steps is still running, so that what its variables hold is there."""
        self.found: list[Finding] = []
        self.wrappers: list[tuple[Finding, Held]] = []
        """What piles up and contains objects that compiled code made: there may be more behind them than can be counted."""
        self.flagged: set[int] = set()
        self.excused: set[int] = set()
        self.unheld: tuple[dict[int, list[Any]], dict[int, float], dict[int, Chain]] = ({}, {}, {})
        self.reached: set[int] = set()
        self.untracked: leak_leaves.Untracked | None = None
        self.nameless: list[Suspect] = []
        """Containers that grow, to which no name leads."""
        self.seen = survey()
        self.own = own_addresses(self.seen, [id(thing) for thing, _ in watcher.tracked.values()])
        own = np.isin(self.seen.address, np.fromiter(self.own, np.int64, len(self.own)))
        self.fresh = ~self.looks[0].has(self.seen.address) & ~own
        """Which of the objects seen were made since the first look, by the program."""

    def steps(self, look: Look) -> int:
        return look.counts.get(self.source.name, 0)

    # -- containers and caches -----------------------------------------------------------------------------------

    def containers(self) -> None:
        suspects = growing_containers(self.looks, self.seen, self.steps, self.own)
        suspects += growing_tables(self.looks, self.steps)
        suspects += self._untracked_tables({id(suspect.thing) for suspect in suspects})
        caches = growing_caches(self.looks, self.seen, self.steps)
        for suspect in (*suspects, *caches):
            known = self.watcher.tracked.get(id(suspect.thing))
            if known is not None and len(known[1]) > len(suspect.points):
                suspect.points = [*known[1], suspect.points[-1]]
        span = max(1, self.steps(self.looks[-1]) - self.steps(self.looks[0]))
        candidates = [s for s in suspects if s.points[-1][1] - s.points[0][1] >= 1][:_MOST_TARGETS] + caches
        kinds = self._rising_kinds()
        samples = self._survivors(kinds)
        targets = [s.thing for s in candidates] + [thing for things in samples.values() for thing in things]
        retention = Retention(self.probes.edges, self.skip)
        chains = retention.find(targets)
        self.reached = retention.reached
        groups: dict[str, Group] = {}
        for suspect in candidates:
            chain = chains.get(id(suspect.thing))
            if chain is None:
                self.nameless.append(suspect)
                continue
            text = pattern(chain)
            groups.setdefault(text, Group(text, chain)).suspects.append(suspect)
        parts = [part for group in groups.values() for part in self._parted(group, chains, span)]
        weighed = [(group, held, rate) for group in parts for held, rate in [self._weigh(group, span)] if rate]
        weighed.sort(key=lambda row: (len(row[0].chain.objects), -row[1].nbytes * row[2]))
        for group, held, rate in weighed:
            self._container_finding(group, held, rate)
        self.unheld = samples, kinds, chains

    def _untracked_tables(self, known: set[int]) -> list[Suspect]:
        before = self.watcher.untracked
        if (
            not self.slope.growing
            or before is None
            or before.source is not self.source
            or self.last_step - before.count < 5
        ):
            return []
        self.untracked = leak_leaves.untracked(self.source, self.seen, self.probes, self.own)
        return [found for found in leak_leaves.grown_tables(before, self.untracked) if id(found.thing) not in known]

    def _parted(self, group: Group, chains: dict[int, Chain], span: int) -> list[Group]:
        """The group; or its members, where these are few and not alike (a list of numbers beside one of tensors)."""
        if not 2 <= len(group.suspects) <= _FEW:
            return [group]
        parts = [Group(group.pattern, chains[id(suspect.thing)], [suspect]) for suspect in group.suspects]
        nbytes = [held.nbytes * rate for part in parts for held, rate in [self._weigh(part, span)]]
        return parts if max(nbytes) > _UNLIKE * sum(nbytes) / len(nbytes) else [group]

    def _weigh(self, group: Group, span: int) -> tuple[Held, float]:
        return self.weigh(group.suspects, {id(thing) for thing in group.chain.objects}, span)

    def weigh(self, suspects: list[Suspect], above: set[int], span: int) -> tuple[Held, float]:
        """What one more element keeps alive beside what is ``above``, and how many are added in a step (0 where few)."""
        points = summed(suspects)
        gained = points[-1][1] - points[0][1]
        if gained < 2 or gained / span < 0.01:
            return Held(0, 0), 0.0
        best = max(suspects, key=lambda s: s.points[-1][1] - s.points[0][1])
        most = _SAMPLE if not is_compiled_container(type(best.thing)) else 4 * _SAMPLE  # in no order
        count = min(most, best.points[-1][1] - best.points[0][1]) or 1
        elements = newest(best.thing, count)
        stop = above | {id(s.thing) for s in suspects}
        held = held_by(elements, self.looks[0].address, self.probes, self.watcher.shared, stop)
        held.nbytes += slot_bytes(best.thing)
        return held, gained / max(1, points[-1][0] - points[0][0])

    def _container_finding(self, group: Group, held: Held, rate: float) -> None:
        best = max(group.suspects, key=lambda s: s.points[-1][1] - s.points[0][1])
        thing, chain = best.thing, group.chain
        nbytes = held.nbytes * rate
        if any(id(above) in self.flagged for above in chain.objects[:-1]):
            return
        if nbytes < FLOOR and not held.hidden:
            return
        points = summed(group.suspects)
        name = holder_words(chain)
        if isinstance(thing, CACHE_TYPE):
            name += " (lru_cache)"
        if self._excused(group, points, name, nbytes, held, thing, chain):
            self.excused.update(id(s.thing) for s in group.suspects)
            return
        clue = Clue(
            name, container_name(thing), element_name(thing), held,
            tuple(type(part).__qualname__ for part in chain.objects), self._caches_a_method(thing, held),
        )  # fmt: skip
        kind, fix = kind_and_fix(clue)
        grown_at = self._grown_at(group.suspects)
        births = self.births(group.suspects, held) or grown_at
        share = rate / max(1e-9, sum(s.rate for s in group.suspects)) if len(group.suspects) > 1 else 1
        found = Finding(
            kind, what(thing, held, rate), group.pattern if len(group.suspects) > 1 else name, births,
            round(nbytes), rate * max(1.0, held.objects) * min(1, share), fix, grown_at,
            steps_of(chain, held), interval(points, held.nbytes), tuple((a, round(b * held.nbytes)) for a, b in points),
        )  # fmt: skip
        if held.hidden:
            self.wrappers.append((found, held))
        if nbytes >= FLOOR:
            self.flagged.update(id(s.thing) for s in group.suspects)
            self.found.append(found)

    def _excused(
        self,
        group: Group,
        points: list[tuple[int, int]],
        name: str,
        nbytes: float,
        held: Held,
        thing: Any,
        chain: Chain,
    ) -> bool:
        bound = own_bound(thing)
        if bound is not None and not (isinstance(thing, CACHE_TYPE) and self._caches_a_method(thing, held)):
            self.quiet.append(
                {"what": name, "why": f"filling to its own bound of {bound} entries ({points[-1][1]} now)"}
            )
            return True
        if len(points) >= 6 and points[-1][0] - points[0][0] >= LEAST_STEPS:
            steady = slope_of([p[0] for p in points], [float(p[1]) for p in points], 1e-3).growing
            flat = steady is False
        else:
            flat = levels_off(points)
        if flat:
            self.quiet.append({"what": name, "why": f"has levelled off at {points[-1][1]} elements"})
            return True
        owner, attribute = owner_of(chain)
        why = code_bounds(attribute, owner, thing) if attribute else ""
        if why:
            self.quiet.append({"what": name, "why": f"not full yet: {why}"})
            return True
        slope = self.slope
        if held.facts["mapped"] and self.resident().growing is True:
            return False
        if slope.growing is False and nbytes > 4 * max(slope.high, FLOOR) and nbytes > 4 * max(slope.slope, 0):
            self.quiet.append({"what": name, "why": "gets longer, but the process holds no more than before"})
            return True
        return False

    def resident(self) -> Slope:
        """The slope of the resident size: malloc knows nothing of mapped memory, and Python's blocks are only counted."""
        samples = self.source.samples
        return slope_of(samples.step, [float(nbytes) for nbytes in samples.resident], FLOOR)

    def _caches_a_method(self, thing: Any, held: Held) -> bool:
        if not isinstance(thing, CACHE_TYPE):
            return False
        function = getattr(thing, "__wrapped__", None)
        names = getattr(getattr(function, "__code__", None), "co_varnames", ())
        own = getattr(function, "__qualname__", "").rpartition(".")[0].rpartition(".")[2]
        return bool(names[:1] == ("self",) and own and own in held.types)

    def births(self, suspects: Sequence[Suspect], held: Held) -> str:
        window = self.watcher.birth_window
        if window is None:
            return ""
        lines: Counter[str] = Counter()
        for suspect in suspects:
            lines.update(window.of_container.get(id(suspect.thing), {}))
        if not lines:
            for name, _ in held.types.most_common(6):
                if name not in ("dict", "tuple", "list", "str", "float", "cell", "int"):
                    lines.update(window.of_kind.get(name, {}))
        return lines.most_common(1)[0][0] if lines else ""

    def _grown_at(self, suspects: Sequence[Suspect]) -> str:
        window = self.watcher.line_window
        if window is None:
            return ""
        lines: Counter[tuple[str, int]] = Counter()
        for suspect in suspects:
            lines.update(window.grown.get(id(suspect.thing), {}))
        best = [line for line, number in lines.most_common(1) if number > 0]
        return place(*best[0]) if best else ""

    def line_of_growth(self) -> tuple[str, float, str, tuple[str, str]]:
        """Where malloc handed out most in the traced steps: the line, how much a step, the function, and whose method it called
        (``owner_in_line``); empty where none was seen.
        """
        window = self.watcher.line_window
        if window is None or not window.heap_by_line:
            return "", 0.0, "", ("", "")
        at, nbytes = window.heap_by_line.most_common(1)[0]
        steps = self.watcher.line_steps(self.source)
        return place(*at), nbytes / steps, window.functions.get(at, ""), window.owners.get(at, ("", ""))

    # -- objects that pile up in no container --------------------------------------------------------------------

    def _rising_kinds(self) -> dict[int, float]:
        found = {}
        now = dict(zip(self.seen.kinds.tolist(), self.seen.numbers.tolist(), strict=True))  # garbage does not count
        kinds, numbers = np.unique(self.seen.kind[self.fresh], return_counts=True)
        fresh = dict(zip(kinds.tolist(), numbers.tolist(), strict=True))
        for kind, points in rising_types(self.looks, self.steps).items():
            if kind in now:  # tuples are not among the objects
                points[-1] = (points[-1][0], min(points[-1][1], now[kind]))
            gained = min(points[-1][1] - points[0][1], fresh.get(kind, 0))
            rate = gained / max(1, points[-1][0] - points[0][0])
            if rate >= 0.05 and not levels_off(points):
                found[kind] = rate
        return found

    def _survivors(self, kinds: dict[int, float]) -> dict[int, list[Any]]:
        """Of each rising type some objects that are new since the first look."""
        chosen = sorted(kinds, key=lambda kind: -kinds[kind])[: 4 * _MOST_KINDS]
        found: dict[int, list[Any]] = defaultdict(list)
        wanted = set(chosen)
        for index in np.flatnonzero(self.fresh)[::-1].tolist():
            thing = self.seen.objects[index]
            kind = id(type(thing))
            if kind in wanted and len(found[kind]) < _SAMPLE:
                found[kind].append(thing)
        return found

    def left(self) -> float:
        """Bytes a step that nothing explains, 0 where what is found explains most."""
        explained = sum(
            max(finding.bytes_per_step, finding.objects_per_step * BLOCK_BYTES)  # as the process's own blocks are counted
            for finding in self.found if finding.kind != "worker"
        )  # fmt: skip
        if not self.slope.growing or explained >= _EXPLAINED * self.slope.slope:
            return 0.0
        left = self.slope.slope - explained
        return left if left >= _UNEXPLAINED and self.slope.low > 0 else 0.0

    def explained(self, nbytes: float) -> bool:
        """Whether what was found already comes to what the process grows by."""
        total = sum(finding.bytes_per_step for finding in self.found)
        return bool(self.slope.growing and total >= 0.7 * self.slope.slope and total > 0)


def judge(watcher: Watcher, *, skip: Sequence[int] = (), final: bool = True) -> Judgement:
    """Judge now. ``final``: what changes the program's memory (a collection, clearing caches) may be tried."""
    began = time.thread_time()
    source = watcher.leader()
    if source is None:
        return Judgement(None, [], [], Slope(None, 0, 0, 0, 0, 0), "", 0, ["nothing repeated"])
    watcher.close_windows()
    level = watcher.meter.read()
    if source.kind != "time":
        source.samples.add(source.count, watcher.clock(), level.heap, level.python, level.resident)
    slope = process_slope(source)
    if source.count < LEAST_STEPS + 3 or slope.growing is None:
        return Judgement(
            None, [], [], Slope(None, 0, 0, 0, 0, 0), source.name, source.count,
            [f"not enough steps: {source.count} were seen, at least {LEAST_STEPS + 3} are needed"],
        )  # fmt: skip
    if not watcher.looks:
        if not slope.growing and not leak_rest.workers_grow(watcher):
            watcher.judged_at[source.name] = source.count
            return Judgement(False, [], [], slope, source.name, source.count)
        watcher.look()
    gc_was = gc.isenabled()
    gc.disable()  # a collection on the way would hide what is garbage now
    try:
        court = _Judge(watcher, source, skip, final)
        court.containers()
        leak_names.replaced(court)
    finally:
        if gc_was:
            gc.enable()
    leak_rest.explain_cycles(court)
    leak_piles.piles(court)
    notes: list[str] = []
    leak_rest.explain_rest(court, final, notes)
    findings = settled(court.found, court.slope, court.resident())
    leaking: bool | None = bool(findings)
    if not findings and court.slope.growing is None:
        leaking = None
        notes.append("not enough steps to tell")
    court.seen.objects.clear()
    watcher.judged_at[source.name] = source.count
    watcher.own_seconds += time.thread_time() - began
    return Judgement(leaking, findings, court.quiet[:20], court.slope, source.name, source.count, notes)
