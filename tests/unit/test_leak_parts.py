"""The parts of the leak hunt, each by itself: curves, loops, the census and its twin, bounds, names."""

from __future__ import annotations

import gc
import random
from collections import OrderedDict, deque
from functools import lru_cache

import numpy as np
import pytest

from memfit.ir.leak import Finding, LeakReport
from memfit.observe.bounded import code_bounds, own_bound
from memfit.observe.chain_words import holder_words, pattern
from memfit.observe.held_bytes import held_by, newest
from memfit.observe.leak_census import grown, joined, take
from memfit.observe.leak_curve import slope_of
from memfit.observe.leak_loops import END, TURN, marked_code
from memfit.observe.leak_suspects import levels_off
from memfit.observe.probes import ArrayProbe, Probes
from memfit.observe.retention import Retention
from memfit.runtime.living import columns, columns_slowly, living, survey, survey_slowly

PROBES = Probes([ArrayProbe()])


def _noisy(values, swing, seed=3):
    draw = random.Random(seed)
    return [value + draw.random() * swing for value in values]


class TestCurve:
    def test_a_small_slope_is_found_under_large_swings(self):
        # 4 KiB a step in a process of 1 GiB whose level swings by 8 MiB within a step, but comes back at times
        values = [(1 << 30) + 4096 * k + (0 if k % 3 == 0 else 8 << 20) for k in range(200)]
        found = slope_of(range(200), values, 512)
        assert found.growing
        assert 3500 < found.slope < 4700

    @pytest.mark.parametrize("level", [
        lambda k: 1e9, lambda k: 1e9 + min(k, 90) * 50_000, lambda k: 1e9 - 5e7 / (k + 1),
        lambda k: 1e9 + (k % 40) * 100_000, lambda k: 1e9 - 1000 * k,
    ], ids=["flat", "fills", "converges", "sawtooth", "falls"])  # fmt: skip
    def test_what_levels_off_or_swings_does_not_grow(self, level):
        assert slope_of(range(200), _noisy([level(k) for k in range(200)], 1000), 512).growing is False

    def test_few_steps_tell_nothing(self):
        assert slope_of(range(5), [k * 1e6 for k in range(5)], 512).growing is None

    def test_looks_level_off(self):
        assert levels_off([(3, 10), (50, 100), (100, 104)])
        assert not levels_off([(3, 10), (50, 100), (100, 196)])


class TestLoops:
    def test_every_working_loop_turns_and_outermost_loops_end(self):
        loops, seen = [], []
        source = b"""
def f(n):
    out = []
    for a in range(n):
        for b in range(2):
            out.append(b)
    while n > 0:
        n -= 1
    return out
value = f(3)
"""
        code = marked_code(source, "made_up.py", loops)
        names = {TURN: lambda n: seen.append(("turn", n)), END: lambda n: seen.append(("end", n))}
        exec(code, names)
        assert names["value"] == [0, 1] * 3
        assert [(loop.line, loop.depth) for loop in loops] == [(4, 0), (5, 1)]  # the while loop allocates nothing
        assert seen.count(("turn", 0)) == 3
        assert seen.count(("turn", 1)) == 6
        assert seen.count(("end", 0)) == 1

    def test_lines_of_errors_stay(self):
        with pytest.raises(ZeroDivisionError) as caught:
            exec(marked_code(b"x = 0\nfor k in range(2):\n    y = [k]\n    print(1 / x)\n", "made_up.py", []),
                 {TURN: lambda n: None, END: lambda n: None})  # fmt: skip
        assert caught.traceback[-1].lineno + 1 == 4

    def test_a_loop_ends_also_by_an_exception(self):
        seen = []
        with pytest.raises(ValueError, match="stop"):
            exec(marked_code(b"def stop(): raise ValueError('stop')\nfor k in range(9):\n    stop()\n", "m.py", []),
                 {TURN: lambda n: None, END: seen.append})  # fmt: skip
        assert seen == [0]


class TestCensus:
    def test_twin(self):
        class Rows(list):
            def __len__(self):
                raise RuntimeError("never called")

        things = [
            [1, 2],
            {1: 2},
            {1},
            frozenset({1, 2}),
            deque([1]),
            (1, 2),
            "text",
            Rows([1, 2, 3]),
            OrderedDict(a=1),
            5,
        ]
        for fast, slow in zip(columns(things), columns_slowly(things), strict=True):
            assert fast.tolist() == slow.tolist()

    def test_the_survey_and_its_twin_count_alike(self):
        kept = [Rows() for Rows in [type("Rows", (list,), {})] for _ in range(3)]
        fast, slow = survey(), survey_slowly()
        for found in (fast, slow):
            numbers = dict(zip(found.kinds.tolist(), found.numbers.tolist(), strict=True))
            assert numbers[id(type(kept[0]))] == 3
            assert [id(thing) for thing in found.of_kind(type(kept[0]))] == [id(thing) for thing in kept]
            assert all(type(found.objects[at]) is not tuple for at in found.first.tolist())
            assert sum(numbers.values()) == len(found.objects) == len(found.address)
        chosen = np.flatnonzero(np.isin(fast.address, [id(thing) for thing in kept]))
        assert fast.length[chosen].tolist() == [0, 0, 0]

    def test_living_objects_are_all_but_tuples(self):
        kept, pair = [1], (2, [3])
        found = {id(thing) for thing in living()}
        assert id(kept) in found
        assert id(pair[1]) in found
        assert id(pair) not in found

    def test_what_grew_between_two_looks(self):
        kept, still = [1], [1, 2]
        first, _ = take({}, {}, (0, 0), {})
        kept.extend(range(10))
        last, _ = take({}, {}, (0, 0), {})
        found = grown(first, last)
        assert found[id(kept)] == 10
        assert id(still) not in found


class Bounded:
    def __init__(self):
        self.entries, self.kept, self.seen, self.lines = OrderedDict(), {}, [], []

    def put(self, key, value):
        self.seen.append(key)
        self.entries[key] = value
        if len(self.entries) > 100:
            self.entries.popitem(last=False)

    def keep(self, key, value):
        self.kept[key] = value

    def forget(self, key):
        self.kept.pop(key)

    def write(self, line):
        self.lines.append(line)
        lines = self.lines
        while len(lines) > 50:
            del lines[0]


class TestBounds:
    def test_own_bounds(self):
        assert own_bound(deque(maxlen=5)) == 5
        assert own_bound(lru_cache(maxsize=7)(len)) == 7
        assert own_bound(lru_cache(maxsize=None)(len)) is None
        assert own_bound([]) is None

    def test_bounds_in_code(self):
        owner = Bounded()
        assert "Bounded.put()" in code_bounds("entries", owner, owner.entries)
        assert code_bounds("kept", owner, owner.kept) == ""  # entries are taken out, but never because of a size
        assert code_bounds("seen", owner, owner.seen) == ""  # the same code bounds another one
        assert "Bounded.write()" in code_bounds("lines", owner, owner.lines)


class Holder:
    def __init__(self):
        self.history = [object()]


HOLDER = Holder()


def _closure():
    hidden = [object()]
    return lambda: hidden


def _chain(get):
    return next(iter(Retention(PROBES.edges).find([get()]).values()))


class TestRetention:
    def test_an_attribute_of_a_module(self):
        name = holder_words(_chain(lambda: HOLDER.history))
        assert name.endswith("HOLDER.history")

    def test_a_variable_of_a_running_function(self):
        kept = {"a": [object()]}
        chain = _chain(lambda: kept["a"])
        assert holder_words(chain) == ("kept['a'] in TestRetention.test_a_variable_of_a_running_function()")
        assert pattern(chain).startswith("kept[*]")

    def test_a_closure(self):
        HOLDER.call = _closure()
        try:
            assert "HOLDER.call (closure variable hidden)" in holder_words(_chain(lambda: HOLDER.call()))
        finally:
            del HOLDER.call

    def test_a_view_holds_its_base(self):
        base = np.zeros(100_000)
        HOLDER.view = base[:2]
        address = id(base)
        del base
        try:
            chain = Retention(PROBES.edges).find([HOLDER.view.base])[address]
            assert holder_words(chain).endswith("HOLDER.view.base")
        finally:
            del HOLDER.view

    def test_an_array_holds_its_objects(self):
        HOLDER.table = np.array([[None], [object()]], object)
        try:
            assert holder_words(_chain(lambda: HOLDER.table[1, 0])).endswith("HOLDER.table[1]")
        finally:
            del HOLDER.table

    def test_bytes_of_one_element_are_its_own(self):
        old = np.sort(np.fromiter(map(id, gc.get_objects()), np.int64))
        container = [np.zeros(1000) for _ in range(6)]
        held = held_by(newest(container, 5), old, PROBES, set(), {id(container)})
        assert 8000 <= held.nbytes < 8300

    def test_names(self):
        assert joined("x in f()", ".y") == "x.y in f()"


def test_report_comes_back_from_json():
    finding = Finding("graph", "what", "holder", "a.py:1", 10, 1.0, "fix", "a.py:2", ("holder",), (5, 15))
    report = LeakReport("a.py", True, (finding,), 20, "loop", 10, (5, 15), 1.0, 0.1, 0.2, ({"what": "a", "why": "b"},),
                        {"heap": [(1, 2)]}, ("note",), "exit")  # fmt: skip
    assert LeakReport.from_json(report.to_json()).to_json() == report.to_json()
