"""The framework-free half of profile, on recordings written by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfit.analyses.timeline import timeline
from memfit.ir.recording import KnownStorage, PythonFrame, Recording, Scope
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage
from memfit.observe.compare import aligned_runs, compare
from memfit.observe.growth import growth_of
from memfit.observe.operations import Words, shown_operations
from memfit.observe.phases import marked_parts
from memfit.observe.recorder import trace_of
from memfit.observe.resident import bands, read_resident, reset_resident_peak

WORDS = Words(
    modules={11: "layer"},
    is_composite=lambda name: name == "aten::linear",
    is_optimizer=lambda name: name.startswith("Optimizer"),
    op_name=lambda name: name.replace("::", "."),
    place=lambda frame: "" if frame.file.startswith("torch") else f"{frame.file}:{frame.line}",
)


def recording(
    events: list[tuple[int, int, int]], operations: list[tuple[str, int, int, int, int, int]] = (),  # type: ignore[assignment]
    marks: list[tuple[str, int]] = (), stacks: tuple[tuple[PythonFrame, ...], ...] = (),  # type: ignore[assignment]
) -> Recording:  # fmt: skip
    """Events as (block, delta, operation), operations as (name, parent, scope, sequence, module, stack)."""
    e, o = np.array(events, np.int64).reshape(-1, 3), np.array([row[1:] for row in operations], np.int64).reshape(-1, 5)
    zeros, count = np.zeros(len(o), np.int64), len(e)
    return Recording(
        block=e[:, 0], delta=e[:, 1], operation=e[:, 2].astype(np.int32), nanoseconds=np.arange(count) * 1000,
        stack=np.full(count, -1, np.int32), name=tuple(row[0] for row in operations), parent=o[:, 0].astype(np.int32),
        scope=o[:, 1].astype(np.int32), sequence=o[:, 2], thread=zeros, forward_thread=zeros, module=o[:, 3],
        operation_stack=o[:, 4].astype(np.int32), operation_nanoseconds=zeros,
        mark_text=tuple(text for text, _ in marks), mark_event=np.array([at for _, at in marks], np.int64),
        mark_operation=np.zeros(len(marks), np.int64), mark_nanoseconds=np.zeros(len(marks), np.int64), stacks=stacks,
    )  # fmt: skip


F, B, U, A = int(Scope.FUNCTION), int(Scope.BACKWARD), int(Scope.USER), int(Scope.AFTER_NODE)
STACK = (PythonFrame("torch/nn.py", 1, "forward"), PythonFrame("model.py", 7, "forward"))
OPERATIONS = [
    ("aten::linear", -1, F, 5, 11, 0),
    ("aten::addmm", 0, F, 5, 11, 0),
    ("aten::empty", 1, F, -1, 11, 0),
    ("AddmmBackward0", -1, B, 5, 0, -1),
    ("aten::mm", 3, F, -1, 0, -1),
    ("aten::sum", -1, A, -1, 0, -1),
    ("Optimizer.step#SGD", -1, U, -1, 0, -1),
    ("aten::mul", 6, F, -1, 0, -1),
]


def test_an_operation_is_shown_at_the_level_of_kernels_with_its_place() -> None:
    shown = shown_operations(recording([], OPERATIONS, stacks=(STACK,)), WORDS)
    assert [(one.name, one.module, one.line) for one in shown] == [
        ("aten.linear", "layer", "model.py:7"),
        ("aten.addmm", "layer", "model.py:7"),
        ("aten.addmm", "layer", "model.py:7"),
        ("AddmmBackward0", "layer", "model.py:7"),  # through the sequence number
        ("aten.mm", "layer", "model.py:7"),
        ("aten.sum", "layer", "model.py:7"),  # the engine, after that node
        ("Optimizer.step#SGD", "", ""),
        ("aten.mul", "", ""),
    ]
    assert [one.backward for one in shown] == [False, False, False, True, True, True, False, False]
    assert [one.optimizer for one in shown] == [False] * 6 + [True, True]
    assert shown[2].row == 1


def test_categories_follow_lives() -> None:
    events = [
        (0, 100, -1),  # build, kept: a buffer
        (1, 10, -1), (1, -10, -1),  # build, gone: temporary
        (2, 50, 2), (3, 7, 1), (3, -7, 1),  # forward: an activation, scratch inside the op
        (4, 20, 4), (5, 30, 4), (4, -20, -1), (2, -50, -1),  # backward: passed on, and a gradient
        (6, 8, 7), (7, 9, 7), (7, -9, 7), (5, -30, -1),  # optimizer: state, and scratch
        (8, 60, -1),  # between: the next batch
        (8, -60, -1),
    ]  # fmt: skip
    marks = [("0 forward", 3), ("0 backward", 6), ("0 optimizer", 10), ("0 between", 14), ("1 forward", 15)]
    known = [
        KnownStorage(0, 100, Category.PARAMETERS, "weight", (25,), "float32"),
        KnownStorage(-1, 40, Category.INPUTS, "x"),
    ]
    trace = trace_of(recording(events, OPERATIONS, marks, (STACK,)), known[1:], WORDS)
    found = [storage.category for storage in trace.storages]
    assert found == [
        Category.BUFFERS, Category.TEMPORARIES, Category.ACTIVATIONS, Category.TEMPORARIES, Category.TEMPORARIES,
        Category.GRADIENTS, Category.OPTIMIZER_STATE, Category.TEMPORARIES, Category.INPUTS, Category.INPUTS,
    ]  # fmt: skip
    whole = timeline(trace)
    assert whole.peak == 100 + 50 + 20 + 30 + 40
    assert trace.delta[0] == 40  # outside the allocator: alive from the beginning to the end
    assert int(trace.delta.sum()) == 40 + 100 + 8
    phases = [(trace.ops[op].step, trace.ops[op].phase) for op in trace.op.tolist()[1:]]
    assert phases == [(-1, "build")] * 3 + [(0, "forward")] * 3 + [(0, "backward")] * 4 + [(0, "optimizer")] * 4 + [
        (0, "between"), (1, "forward")
    ]  # fmt: skip
    labelled = trace_of(recording(events, OPERATIONS, marks, (STACK,)), known[:1], WORDS).storages[0]
    assert (labelled.category, labelled.label, labelled.shape) == (Category.PARAMETERS, "weight", (25,))


def test_a_run_is_split_by_its_operations() -> None:
    events = [(0, 5, 1), (1, 5, 4), (1, -5, -1), (2, 5, 7), (2, -5, -1), (3, 5, 1)]
    made = trace_of(recording(events, OPERATIONS, [("0 run", 0)], (STACK,)), [], WORDS)
    assert [made.ops[op].phase for op in made.op.tolist()] == [
        "forward", "backward", "backward", "optimizer", "optimizer", "forward",
    ]  # fmt: skip


def test_a_step_that_was_not_watched_borrows_as_far_as_it_agrees() -> None:
    first = [(0, 5, 1), (0, -5, 1), (1, 7, 4), (2, 3, 7), (1, -7, -1), (2, -3, -1)]
    marks = [("0 run", 0), ("1 run", 6)]
    same = [(number + 10, delta, -1) for number, delta, _ in first]
    trace = trace_of(recording(first + same, OPERATIONS, marks, (STACK,)), [], WORDS)
    names = [trace.ops[op].name for op in trace.op.tolist()]
    assert names[:6] == names[6:]
    assert [trace.ops[op].step for op in trace.op.tolist()] == [0] * 6 + [1] * 6
    more = [*same[:2], (20, 99, -1), (20, -99, -1), *same[2:]]
    trace = trace_of(recording(first + more, OPERATIONS, marks, (STACK,)), [], WORDS)
    again = [trace.ops[op].name for op in trace.op.tolist()][6:]
    assert again[:2] + again[4:] == names[:6]


def test_empty_recordings_are_traces_too() -> None:
    trace = trace_of(recording([]), [], WORDS)
    assert len(trace) == 0
    assert timeline(trace).peak == 0
    assert marked_parts(recording([])) == []
    only = trace_of(recording([]), [KnownStorage(-1, 40, Category.INPUTS)], WORDS)
    assert timeline(only).peak == 40


def made_trace(sizes: list[tuple[str, int]], kind: str = "measured", phase: str = "forward") -> Trace:
    ops = tuple(TraceOp(name, 0, phase, f"module{index}", f"model.py:{index}") for index, (name, _) in enumerate(sizes))
    storages = tuple(TraceStorage(size, Category.ACTIVATIONS, index) for index, (_, size) in enumerate(sizes))
    count = np.arange(len(sizes))
    return Trace(kind, ops, storages, count, np.array([size for _, size in sizes], np.int64), count)


NAMES = [(name, 4096 * (index + 1)) for index, name in enumerate(["mm", "gelu", "mm", "add", "mm", "sum", "mul", "mm"])]


@pytest.mark.parametrize("planted", range(len(NAMES)))
def test_a_planted_divergence_is_found_where_it_is(planted: int) -> None:
    wrong = [(name, size + (100_000 if index == planted else 0)) for index, (name, size) in enumerate(NAMES)]
    first = compare(made_trace(NAMES, "projected"), made_trace(wrong)).first_divergence
    assert first is not None
    assert (first.op, first.module, first.line) == (NAMES[planted][0], f"module{planted}", f"model.py:{planted}")
    assert first.measured - first.projected == 100_000
    assert compare(made_trace(NAMES, "projected"), made_trace(NAMES)).first_divergence is None


@pytest.mark.parametrize("missing", range(len(NAMES)))
def test_an_op_that_one_side_lacks_does_not_throw_the_rest_out_of_step(missing: int) -> None:
    lacking = NAMES[:missing] + NAMES[missing + 1 :]
    found = compare(made_trace(lacking, "projected"), made_trace(NAMES))
    assert len(found.divergences) <= 2
    assert found.first_divergence is not None
    assert abs(found.first_divergence.measured - found.first_divergence.projected) >= 4096
    renamed = [(("other" if index == missing else name), size) for index, (name, size) in enumerate(NAMES)]
    assert compare(made_trace(renamed, "projected"), made_trace(NAMES)).divergences == ()


def test_phases_that_one_side_does_not_tell_are_joined() -> None:
    both = made_trace(NAMES)
    split = replace(
        both, ops=tuple(replace(op, phase="backward" if i > 4 else "forward") for i, op in enumerate(both.ops))
    )
    found = compare(made_trace(NAMES, "projected"), split)
    assert found.first_divergence is None
    assert found.aligned == len(NAMES)


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.lists(st.sampled_from("abcd"), max_size=30))
def test_alignment_loses_and_reorders_nothing(one: list[str], other: list[str]) -> None:
    runs = list(
        aligned_runs(
            _made(one),  # type: ignore[arg-type]
            _made(other),  # type: ignore[arg-type]
        )
    )
    assert [made.op.name for run, _ in runs for made in run] == one
    assert [made.op.name for _, run in runs for made in run] == other


class _Made:
    def __init__(self, name: str) -> None:
        self.op = TraceOp(name)
        self.rise = self.kept = 1


def _made(names: list[str]) -> list[_Made]:
    return [_Made(name) for name in names]


def test_long_runs_are_aligned_by_occurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memfit.observe.compare._LONG", 2)
    lacking = NAMES[:3] + NAMES[4:]
    found = compare(made_trace(lacking, "projected"), made_trace(NAMES))
    assert found.only_measured >= 1
    assert found.aligned >= 5


@pytest.mark.parametrize(
    ("steps", "growing"),
    [
        ([100_000] * 8, True),  # a leak
        ([50_000, 40_000, 30_000, 0, 0, 0, 0, 0], False),  # a cache that fills up
        ([0] * 8, False),
        ([30_000, 30_000, -60_000] * 3, False),  # a collector that runs now and then
        ([4] * 8, False),  # a number kept
        ([200_000, 150_000], True),
        ([200_000], None),
    ],
)
def test_growth_is_told_from_a_plateau(steps: list[int], growing: bool | None) -> None:
    ends = list(accumulate(steps, initial=10**6))
    assert growth_of(ends).growing is growing


PARTS = ("live", "shared", "arena", "mapped", "used", "free")


@given(
    st.fixed_dictionaries({name: st.integers(0, 10**9) for name in PARTS}),
    st.integers(0, 10**10), st.integers(0, 10**7),
)  # fmt: skip
def test_bands_always_sum_to_the_growth(part: dict[str, int], resident: int, recorder: int) -> None:
    before = dict.fromkeys(("resident", *PARTS), 0)
    fullest = {**part, "resident": resident}
    found = bands(before, fullest, resident + 12345, recorder)
    assert sum(found.values()) == resident + 12345


def test_the_resident_peak_starts_anew() -> None:
    block = np.ones(50_000_000, np.uint8)
    high = read_resident()
    del block
    if not reset_resident_peak():
        pytest.skip("this system does not let the peak start anew")
    low = read_resident()
    assert low.peak < high.peak
    assert low.peak >= low.now - 2**21
