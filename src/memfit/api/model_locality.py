"""``memfit.locality`` of a model: what memory limits here, and what another layout or fewer passes save, found by running.

The roofline comes from the measured machine and the library's own speed. A change is advice only where the changed step gives
the same results (to rounding), is faster by ``WORTH``, and its times do not overlap with the original's; the time at stake is
what its operations took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from memfit.api.locality_advice import WORTH, proved
from memfit.errors import MachineError, MemfitError, target_named
from memfit.fitting.timed_kernel import Timed, find_compiler, in_turns
from memfit.ir.step import Step
from memfit.machine.roofline import Roofline, roofline_of
from memfit.machine.spec import Machine, load_machine
from memfit.report.locality_summary import AdviceRow, LevelRow, LocalityReport, OpRow

if TYPE_CHECKING:
    from memfit.frameworks.torch.layout_changes import LayoutRun
    from memfit.frameworks.torch.op_costs import OpCost

Progress = Callable[[str, int | None, int | None], None]
FUSED_SHARE = 0.02
"""Fusion is compiled and timed where it is projected to save so much of the step."""
ROUNDS, BUDGET = 11, 24.0
LINE = 64


def model_locality(
    target: str | Step | Callable[..., Any], *, machine: Machine | str | None = None,
    settings: Mapping[str, Any] | None = None, advise: bool = True, prove: bool = True, progress: Progress | None = None,
) -> LocalityReport:  # fmt: skip
    """Operations of a torch step by time, what limits each here, and changes of layout that save measured time.

    Args:
        target: ``file.py:function``, the function itself, or a Step.
        machine: a measured machine (``memfit machine --json``); None: this one is measured, about 2 s.
        prove: run the changed steps beside the original; False: the projections alone.

    Raises:
        MemfitError: the target cannot be used or does not run.

    Cost: some 30 runs of the step for each change, and, where fusion is worth trying, what ``torch.compile`` takes.
    """
    from memfit.api.prediction import step_builder
    from memfit.frameworks.torch import layout_changes as layouts
    from memfit.frameworks.torch import speeds_here
    from memfit.frameworks.torch.op_costs import op_costs

    begun = time.process_time()
    say = progress or (lambda text, done, total: None)
    build, name = step_builder(target, settings)
    say("measuring the machine", None, None)
    here = _measured(machine)
    with target_named(name):
        step = target if isinstance(target, Step) else build({})
        run = layouts.plain_run(step)
        say("running the step", None, None)
        run()
        costs = op_costs(run, layouts.kept_tensors(run))
        room = layouts.possible(run) if advise else []
    ops = costs.ops
    threads = speeds_here.threads()
    limits = roofline_of(here, speeds_here.float_operations(), speeds_here.memory_bandwidth(), threads)
    notes: list[str] = [] if threads > 1 else ["one thread: memory has one core's bandwidth"]
    advice: list[AdviceRow] = []
    if advise:
        with target_named(name):
            advice = _Advisor(run, ops, limits, here, notes, say, prove=prove).rows(room)
    return LocalityReport(
        name, here.name, sum(op.bytes // LINE for op in ops), _levels(ops, here), (), (), -(-costs.least_bytes // LINE), LINE,
        tuple(advice), time.process_time() - begun, tuple((c.name, c.bytes) for c in here.caches), tuple(notes),
        tuple(_rows(ops, limits)), (limits.flops, limits.memory), sum(op.seconds for op in ops),
    )  # fmt: skip


def _measured(machine: Machine | str | None) -> Machine:
    if isinstance(machine, Machine):
        return machine
    if machine is not None:
        return load_machine(machine)
    from memfit.machine.probe import measure_machine

    return measure_machine(None)


def _levels(ops: Sequence[OpCost], machine: Machine) -> tuple[LevelRow, ...]:
    """Projected lines: an operation whose tensors do not fit a level brings each of their lines once."""
    rows = []
    reached = list(ops)
    for level in machine.caches:
        missing = [op for op in reached if op.bytes > level.bytes]
        by_op: dict[str, int] = {}
        for op in missing:
            by_op[op.name] = by_op.get(op.name, 0) + op.bytes // LINE
        lines = sum(op.bytes // LINE for op in reached)
        rows.append(LevelRow(level.name, lines, sum(by_op.values()), by_op, 0))
        reached = missing
    return tuple(rows)


def _rows(ops: Sequence[OpCost], limits: Roofline) -> list[OpRow]:
    """Operations of one name and one limit together, the longest first."""
    groups: dict[tuple[str, str], list[OpCost]] = {}
    for op in ops:
        groups.setdefault((op.name, limits.bound(op.bytes, op.flops, op.seconds)), []).append(op)
    rows = [
        OpRow(
            name, bound, len(same), sum(op.seconds for op in same), sum(limits.floor(op.bytes, op.flops) for op in same),
            sum(op.bytes for op in same), sum(op.flops for op in same), max(same, key=lambda op: op.seconds).line,
        )
        for (name, bound), same in groups.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row.seconds)


@dataclass
class _Advisor:
    """Tries changes one by one, then those that saved time together, then fused."""

    run: LayoutRun
    ops: Sequence[OpCost]
    limits: Roofline
    machine: Machine
    notes: list[str]
    say: Progress
    prove: bool

    def __post_init__(self) -> None:
        self.total = sum(op.seconds for op in self.ops)

    def rows(self, room: Sequence[str]) -> list[AdviceRow]:
        """Rows of advice for the changes there is room for."""
        from memfit.frameworks.torch.layout_changes import FUSED

        stake = self.stake((FUSED,))
        if not self.prove:
            found = [self.row((change,)) for change in (*room, FUSED)]
            likely = [row for row in found if row.projected_speedup > WORTH]
            return sorted(likely, key=lambda row: -row.projected_speedup)
        singles = self.tried([(change,) for change in room])
        good = [changes for changes, row in singles if _saves(row)]
        rows = [row for _, row in singles if _saves(row)]
        best = tuple(change for changes in good for change in changes)
        if len(good) > 1:
            together = self.tried([best])
            rows += [row for _, row in together if _saves(row)]
        if stake > FUSED_SHARE * self.total and self._compiler():
            fused = self.tried([(*best, FUSED)])
            rows += [row for _, row in fused if _saves(row)]
        return sorted(rows, key=lambda row: -(row.measured_speedup or 0))

    def _compiler(self) -> bool:
        try:
            find_compiler()
        except MachineError as error:
            self.notes.append(f"fusion was not tried: {error.why}")
            return False
        return True

    def tried(self, wanted: Sequence[tuple[str, ...]]) -> list[tuple[tuple[str, ...], AdviceRow]]:
        """Each set of changes with its row, timed in turns with the original; those that fail or differ are notes."""
        from memfit.frameworks.torch import layout_changes as layouts

        expected = layouts.result_of(self.run)
        ready: list[tuple[tuple[str, ...], LayoutRun, float]] = []
        for changes in wanted:
            self.say(f"trying {' and '.join(changes)}", None, None)
            try:
                other = layouts.changed(self.run, changes)
                error = layouts.difference(expected, layouts.result_of(other))
            except MemfitError:
                raise
            except Exception as problem:  # a model or a compiler may refuse any change, in any way
                self.notes.append(
                    f"{_words(changes)}: it does not run so ({type(problem).__name__}: {_first(problem)})"
                )
                continue
            if not error <= 1:
                self.notes.append(
                    f"{_words(changes)}: results differ by {error:.1e} times what rounding allows, so it is no advice"
                )
                continue
            ready.append((changes, other, error))
        if not ready:
            return []
        self.say(f"timing {len(ready)} changes", None, None)
        once = [self.run.seconds(), *(other.seconds() for _, other, _ in ready)]
        runs = [self.run.seconds, *(other.seconds for _, other, _ in ready)]
        before, *after = in_turns(runs, once, rounds=ROUNDS, budget=BUDGET)
        found = []
        for (changes, other, error), timed in zip(ready, after, strict=True):
            row = proved(self.row(changes, other, error), before, timed)
            found.append((changes, row))
            if not _saves(row):
                self.notes.append(f"{_words(changes)}: {_verdict(before, timed)}")
        return found

    def row(self, changes: tuple[str, ...], other: LayoutRun | None = None, error: float | None = None) -> AdviceRow:
        """A row of changes that were not timed yet."""
        from memfit.frameworks.torch.layout_changes import FUSED
        from memfit.frameworks.torch.op_costs import op_costs

        levels: tuple[LevelRow, ...] = ()
        if other is not None and FUSED not in changes:
            levels = _levels(op_costs(other, passes=0).ops, self.machine)
        stake = min(self.stake(changes), 0.95 * self.total)
        words = "not compared" if error is None else "bit-exact" if error == 0 else "reassociating"
        return AdviceRow(
            "model",
            _words(changes),
            {level.name: level.misses for level in levels},
            self.total / max(self.total - stake, 1e-12),
            numerics=words,
            stake_seconds=stake,
            by_array={level.name: level.by_array for level in levels},
        )

    def stake(self, changes: tuple[str, ...]) -> float:
        """Projected seconds that the changes may save."""
        return sum(self._stake(change) for change in changes)

    def _stake(self, change: str) -> float:
        from memfit.frameworks.torch import layout_changes as layouts

        if change == layouts.FOLD:
            return sum(op.seconds for op in self.ops if "batch_norm" in op.name)
        if change == layouts.COPIES:
            return sum(op.seconds for op in self.ops if op.copy)
        if change == layouts.CHANNELS_LAST:  # convolutions reorder what they read and write, unless channels come last
            return sum(
                min(op.bytes / self.limits.bandwidth(op.bytes), op.seconds) for op in self.ops if "conv" in op.name
            )
        saved = 0.0
        moving = [op for op in self.ops if op.bytes]
        for together, group in groupby(moving, lambda op: op.fusible):
            run = list(group)
            moved = sum(op.bytes for op in run)
            if together and len(run) > 1 and moved:
                between = 2 * sum(op.made for op in run[:-1])
                saved += sum(op.seconds for op in run) * min(between / moved, 1.0)
        return saved


_WORDS = {
    "channels_last": "model.to(memory_format=torch.channels_last), inputs too",
    "batch norms folded": "batch norms folded into the convolutions before them (torch.nn.utils.fusion.fuse_conv_bn_eval)",
    "copies left out": "without .contiguous(), view written as reshape",
    "fused": "torch.compile(model): chains of operations in one pass",
}


def _saves(row: AdviceRow) -> bool:
    return (row.measured_speedup or 0.0) > WORTH


def _words(changes: tuple[str, ...]) -> str:
    return "; ".join(_WORDS[change] for change in changes)


def _first(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or ["no message"])[0][:160]


def _verdict(before: Timed, after: Timed) -> str:
    times = f"{1000 * before.seconds:.3g} ms before, {1000 * after.seconds:.3g} ms after"
    if before.faster_than(after):
        return f"slower here ({times}), so it is no advice"
    if after.faster_than(before):
        return f"saves too little ({times}) to be advice"
    return f"no difference that outweighs the spread ({times}), so it is no advice"
