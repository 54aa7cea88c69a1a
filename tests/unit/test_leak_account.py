"""What the leak hunt may count and what not: its own objects, garbage, levels of a program that is gone, which loop counts."""

from __future__ import annotations

import gc

import pytest

from memfit.api.leak_hunt import Hunt
from memfit.observe import leak_cycles
from memfit.observe.leak_history import History, read_history
from memfit.observe.leak_sources import Source, leader_of, process_slope
from memfit.observe.own_objects import own_addresses
from memfit.runtime.living import survey


class TestOwnObjects:
    def test_plain_containers_of_the_watching_are_its_own_and_the_program_s_are_not(self):
        hunt = Hunt("a loop")
        kept = [[]]
        for _ in range(30):
            hunt.watcher.turn("declared", "steps", "declared")
            kept.append([object()] * 500)
        (source,) = hunt.watcher.sources.values()
        own = own_addresses(survey(), [id(thing) for thing, _ in hunt.watcher.tracked.values()])
        assert {id(source.samples.step), id(hunt.watcher.sources), id(hunt.watcher.looks)} <= own
        assert hunt.watcher.looks
        assert not own & {id(kept), *map(id, kept)}
        hunt.watcher.close()

    def test_what_the_watching_looks_at_stays_the_program_s(self):
        hunt, kept = Hunt("a loop"), [[]]
        hunt.watcher.tracked[id(kept)] = (kept, [(1, 1)])
        assert id(kept) in own_addresses(survey(), ())
        own = own_addresses(survey(), [id(kept)])
        assert id(kept) not in own
        assert id(hunt.watcher.tracked[id(kept)][1]) in own


class TestHistory:
    def test_levels_come_back_and_a_last_line_cut_off_is_passed_over(self, tmp_path):
        path = tmp_path / "levels"
        history, written = History(path), Source("loop at x.py:3", "loop", 1, first=2.5)
        for step in range(1, 41):
            written.samples.add(step, step / 4, 1000 * step, 50, 10**6)
            history.add(written)
        path.write_bytes(path.read_bytes()[:-9])
        (found,) = read_history(path)
        assert (found.name, found.kind, found.depth, found.count, found.last) == (
            "loop at x.py:3",
            "loop",
            1,
            39,
            39 / 4,
        )
        assert found.samples.heap == written.samples.heap[:39]
        assert process_slope(found).growing is True

    @pytest.mark.parametrize("text", [None, "", "[", "{}\n[1]\n[7, 1, 2, 3, 4, 5]\n"])
    def test_what_is_no_history_is_none(self, tmp_path, text):
        path = tmp_path / "levels"
        if text is not None:
            path.write_text(text)
        assert read_history(path) == []


class TestWhichLoopIsTheStep:
    @staticmethod
    def loop(name, count, first, last, depth=0, kind="loop"):
        return Source(name, kind, depth, count, first, last)

    def test_a_loop_that_built_something_is_not(self):
        built, steps = self.loop("built", 30, 0.0, 6.0), self.loop("steps", 150, 6.1, 10.0)
        assert leader_of([built, steps]) is steps

    def test_the_outermost_that_turns_often_enough(self):
        epochs, batches = self.loop("epochs", 25, 0.0, 9.6), self.loop("batches", 250, 0.1, 10.0, 1)
        assert leader_of([epochs, batches]) is epochs
        epochs.count = 5
        assert leader_of([epochs, batches]) is batches

    def test_a_declared_step_before_all(self):
        declared = self.loop("steps", 20, 3.0, 5.0, kind="declared")
        assert (
            leader_of([self.loop("batches", 250, 0.1, 10.0), declared, self.loop("time", 90, 0, 10, kind="time")])
            is declared
        )
        assert leader_of([]) is None


class TestPatience:
    def test_garbage_that_younger_collections_meet_is_freed_in_time(self):
        soon = leak_cycles.patience(4000, 3.0, (14, 1, 0), 250)
        late = leak_cycles.patience(4000, 3.0, (0, 0, 0), 250)
        assert 0 < soon <= late < float("inf")

    def test_a_collector_that_is_off_never_comes(self):
        gc.disable()
        try:
            assert leak_cycles.patience(4000, 3.0, (14, 1, 0), 250) == float("inf")
        finally:
            gc.enable()
