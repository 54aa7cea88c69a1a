"""Objects that pile up in no container: those that a name still reaches, and those that only compiled code keeps.

The first are told from their chains, those of one pattern together. The second, *orphans*, no name reaches although a
collection leaves them alive: something in C holds them. The outermost of them (no other orphan refers to it) is what was
handed over, so it names the place: a bound method, a callback, a tensor. Lists in C whose entries can be counted
(``Register``: functions to call at exit, compiled functions) name the holder where they grow at the same pace. Cost: one
look at the new objects of the types of which there are more.
"""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

from memfit.ir.leak import Finding, Register, Stuck
from memfit.observe.chain_words import holder_words, pattern
from memfit.observe.held_bytes import Held, held_by
from memfit.observe.leak_kinds import Clue, kind_and_fix
from memfit.observe.leak_sources import FLOOR
from memfit.observe.leak_suspects import levels_off
from memfit.observe.retention import Chain

if TYPE_CHECKING:
    from memfit.observe.leak_judge import _Judge

_MOST_KINDS = 10
_MOST_ORPHANS = 20_000
_SAMPLE = 12
_LEAST_RATE = 0.05
"""Objects, or entries of a register, per step below which nothing is said."""


def piles(court: _Judge) -> None:
    """Objects that pile up in no container: chains, and whatever only objects hold."""
    samples, kinds, chains = court.unheld
    if not court.slope.growing:
        return
    groups: dict[str, list[tuple[Any, Chain]]] = defaultdict(list)
    for things in samples.values():
        for thing in things:
            chain = chains.get(id(thing))
            if chain is None or any(id(above) in court.flagged for above in chain.objects) or _is_attributes(chain):
                continue
            groups[pattern(chain)].append((thing, chain))
    rows = []
    for text, members in groups.items():
        things = [thing for thing, _ in members]
        kind = id(type(things[0]))
        if len(things) < max(2, len(samples[kind]) // 2):
            continue
        held = _held(court, things, [chain for _, chain in members])
        rows.append((held.nbytes * kinds[kind], text, held, members, kinds[kind]))
    rows.sort(key=lambda row: -row[0])
    for nbytes, text, held, members, rate in rows[:_MOST_KINDS]:
        if court.explained(nbytes) or (nbytes < FLOOR and not held.hidden):
            continue
        thing, chain = members[0]
        path, inside, where = text.partition(" in ")
        start = f"{path.partition('.grad_fn')[0]}{inside}{where}"
        if any(finding.holder in (text, start) for finding in court.found):
            continue
        clue = Clue(text, "", type(thing).__qualname__, held)
        word, fix = kind_and_fix(clue)
        found = Finding(
            word, f"{type(thing).__qualname__} objects", text, _birth(court, thing, held), round(nbytes),
            rate * max(1.0, held.objects), fix, "", (min(holder_words(chain), text, key=len),), (round(nbytes), round(nbytes)),
        )  # fmt: skip
        if held.hidden and rate >= _LEAST_RATE:
            court.wrappers.append((found, held))
        if nbytes >= FLOOR:
            court.found.append(found)


def _is_attributes(chain: Chain) -> bool:
    """Whether what a chain leads to are the attributes of the object before, which has the same name."""
    if len(chain.objects) < 2 or type(chain.objects[-1]) is not dict:
        return False
    try:
        return object.__getattribute__(chain.objects[-2], "__dict__") is chain.objects[-1]
    except Exception:
        return False


def _held(court: _Judge, things: list[Any], chains: list[Chain]) -> Held:
    """What one more of them keeps alive: where each leads to the one before, each pays for its own part."""
    lengths = [len(chain.objects) for chain in chains]
    order = sorted(range(len(things)), key=lambda number: (-lengths[number], -number))  # the innermost first
    things = [things[number] for number in order]
    shortest = chains[order[-1]]
    own = {id(thing) for thing in things}
    every = {id(above) for chain in chains for above in chain.objects} - own
    tries = [
        held_by(things, court.looks[0].address, court.probes, court.watcher.shared, stop)
        for stop in ({id(above) for above in shortest.objects} - own, every)
    ]
    return max(tries, key=lambda held: held.nbytes)


def _birth(court: _Judge, thing: Any, held: Held | None = None) -> str:
    """The line that made objects of such a type, or else of those that they keep alive."""
    window = court.watcher.birth_window
    if window is None:
        return ""
    births: Counter[str] = window.of_kind.get(type(thing).__qualname__) or Counter()
    for name, _ in held.types.most_common(4) if held is not None and not births else ():
        births.update(window.of_kind.get(name, {}))
    return births.most_common(1)[0][0] if births else ""


def orphans(court: _Judge, *, known_only: bool) -> None:
    """Objects that live although no name reaches them; ``known_only``: those of which it can be told who keeps them."""
    _, kinds, _ = court.unheld
    left = court.left()
    if left <= 0 or not kinds or court.garbage is None:  # without a collection garbage would look the same
        return
    alone = _unreached(court, kinds)
    within = {id(child) for thing in alone for child in _below(thing)}
    groups: dict[str, list[Any]] = defaultdict(list)
    for thing in [thing for thing in alone if id(thing) not in within]:
        groups[_name(thing)].append(thing)
    span = max(1, court.steps(court.looks[-1]) - court.steps(court.looks[0]))
    rows = []
    for name, things in groups.items():
        rate = len(things) / span
        if rate >= _LEAST_RATE:
            held = held_by(things[-_SAMPLE:], court.looks[0].address, court.probes, court.watcher.shared, ())
            rows.append((held.nbytes * rate, name, things, held, rate))
    rows.sort(key=lambda row: -row[0])
    registers = rising_registers(court)
    for nbytes, name, things, held, rate in rows[:_MOST_KINDS]:
        if nbytes < max(FLOOR, 0.1 * left) or court.left() <= 0:
            continue
        known = court.probes.orphan(things[-1])
        near = [row for row in registers if 0.4 * rate <= row[1] <= 2.5 * rate]
        if known_only and known is None and not near:
            continue
        if known is not None:
            kind, what, holder, fix = known.kind, known.what, known.holder, known.fix
        elif near:
            register, _ = near[0]
            kind, what = register.kind, f"{name}, kept in a list that only C sees"
            holder, fix = f"{register.holder}: {name}", register.fix
        else:
            kind, what = "objects", f"{type(things[-1]).__qualname__} objects that no name in Python reaches"
            holder = f"compiled code that was given {name}"
            fix = (
                f"a C or C++ library holds {name}: close, remove or unregister there what was handed to it, or give it a "
                "weak reference"
            )
        birth = _birth(court, things[-1]) or _birth_below(court, things[-1])
        court.found.append(Finding(
            kind, what, holder, birth, round(min(nbytes, left)), rate * max(1.0, held.objects), fix, "", (holder,),
            (round(min(nbytes, left)), round(left)),
        ))  # fmt: skip


def nameless(court: _Judge) -> None:
    """Containers that grow although no name leads to them: the interpreter or a library holds them."""
    left = court.left()
    span = max(1, court.steps(court.looks[-1]) - court.steps(court.looks[0]))
    rows = []
    for suspect in court.nameless if left > 0 else ():
        if not levels_off(suspect.points):
            held, rate = court.weigh([suspect], set(), span)
            rows.append((held.nbytes * rate, suspect, held, rate))
    for nbytes, suspect, held, rate in sorted(rows, key=lambda row: -row[0])[:_MOST_KINDS]:
        if nbytes < max(FLOOR, 0.3 * left) or court.left() <= 0:
            continue
        kind = type(suspect.thing).__qualname__
        known = court.probes.orphan(suspect.thing) or Stuck(
            "container", f"{kind} gains {rate:.3g} a step", f"a {kind} object that only compiled code holds",
            f"a C or C++ library holds a {kind} that only grows: clear, close or unregister there what was handed to it",
            suspect.thing, 1,
        )  # fmt: skip
        birth = court.births([suspect], held)
        court.found.append(Finding(
            known.kind, known.what, known.holder, birth, round(min(nbytes, left)), rate * max(1.0, held.objects), known.fix, "",
            (known.holder,), (round(min(nbytes, left)), round(left)), tuple(suspect.points),
        ))  # fmt: skip


def _unreached(court: _Judge, kinds: dict[int, float]) -> list[Any]:
    found = []
    for index in np.flatnonzero(court.fresh).tolist():
        thing = court.seen.objects[index]
        if id(type(thing)) in kinds and id(thing) not in court.reached:
            found.append(thing)
            if len(found) >= _MOST_ORPHANS:
                break
    return found


def _below(thing: Any) -> list[Any]:
    """What an object refers to, through tuples, which are never among the objects of a look."""
    found: list[Any] = []
    for child in gc.get_referents(thing):
        found.extend(gc.get_referents(child) if type(child) is tuple else (child,))
    return found


def _name(thing: Any) -> str:
    if isinstance(thing, MethodType):
        return f"{getattr(thing.__func__, '__qualname__', '?')} (a bound method)"
    if isinstance(thing, FunctionType):
        return f"{thing.__qualname__}()"
    if isinstance(thing, partial):
        return f"partial({getattr(thing.func, '__qualname__', '…')})"
    return f"{type(thing).__qualname__} objects"


def _birth_below(court: _Judge, thing: Any) -> str:
    """Where what it keeps alive was made, if not where it was made itself."""
    return next(filter(None, (_birth(court, child) for child in _below(thing))), "")


def rising_registers(court: _Judge) -> list[tuple[Register, float]]:
    """Registers that grow without levelling off, with their entries a step, the fastest first."""
    found: list[tuple[Register, float]] = []
    for register in court.probes.registers():
        points = [
            (court.steps(look), look.registers[register.holder])
            for look in court.looks
            if register.holder in look.registers
        ]
        if len(points) < 2 or levels_off(points):
            continue
        rate = (points[-1][1] - points[0][1]) / max(1, points[-1][0] - points[0][0])
        if rate >= _LEAST_RATE:
            found.append((register, rate))
    return sorted(found, key=lambda row: -row[1])
