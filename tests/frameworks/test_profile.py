"""`profile` on small programs whose bytes can be counted by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from memfit.analyses.timeline import timeline
from memfit.api.profiling import profile
from memfit.errors import DeviceError, TargetError
from memfit.frameworks.torch.profiler_events import ProfilerHook
from memfit.frameworks.torch.run_recorder import RunRecorder, record_steps
from memfit.ir.step import Step
from memfit.ir.trace import Trace

WIDTH, BATCH = 256, 64
WEIGHTS = 4 * (WIDTH * WIDTH + WIDTH) * 2  # two layers, float32


def build(**settings: Any) -> Step:
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, WIDTH))
    model.register_buffer("scale", torch.ones(1000))
    optimizer = torch.optim.AdamW(model.parameters())
    return Step(
        model, torch.randn(BATCH, WIDTH), loss=lambda output: output.square().mean(), optimizer=optimizer, **settings
    )


def test_categories_are_exact_on_a_small_model() -> None:
    report = profile(build(), steps=2)  # the model exists already: its bytes come from the census
    assert report.timeline is not None
    rows = [(storage, report.timeline.trace.ops[storage.op]) for storage in report.timeline.trace.storages]
    bytes_of = {
        category: sum(storage.nbytes for storage, _ in rows if storage.category == category)
        for category in ("parameters", "buffers", "inputs", "optimizer_state")
    }
    assert bytes_of["parameters"] == WEIGHTS
    assert bytes_of["buffers"] == 4000
    assert bytes_of["inputs"] == 4 * BATCH * WIDTH
    assert bytes_of["optimizer_state"] == 2 * WEIGHTS + 4 * 4  # moments, and a step count for each parameter
    gradients = [storage for storage, op in rows if storage.category == "gradients" and op.step == 1]
    assert sum(storage.nbytes for storage in gradients) == WEIGHTS
    assert {storage.label for storage in gradients} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    activations = [
        (storage.nbytes, op.name, op.module)
        for storage, op in rows
        if storage.category == "activations" and op.step == 1
    ]
    layer = 4 * BATCH * WIDTH
    assert (layer, "aten.addmm.default", "0") in activations
    assert (layer, "aten.tanh.default", "1") in activations
    assert (layer, "aten.addmm.default", "2") in activations


def test_report_reconciles_three_meters() -> None:
    report = profile(f"{__file__}:build", steps=3)
    data = json.loads(json.dumps(report.to_json()))
    meters = data["reconciliation"]
    assert meters["tape"] == meters["allocator"] == data["peak"]["live"] == data["peak"]["allocated"]
    bands = {name: value for name, value in meters.items() if isinstance(value, int)}
    named = sum(value for name, value in bands.items() if name not in ("tape", "allocator", "resident"))
    assert named == meters["resident"]
    assert meters["percent"]["allocator_named"] >= 98.0
    assert sum(data["categories"].values()) == data["peak"]["live"]
    assert data["first_step_peak"] <= data["steady_peak"] == data["peak"]["live"]
    assert data["growth"] == {"bytes_per_step": 0, "growing": False, "steps": 2}
    assert data["at"]["phase"] == "optimizer"
    assert data["peak"]["resident"] > data["peak"]["reserved"] >= data["peak"]["live"]


def _line_of(text: str) -> int:
    return next(number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if text in line)


def test_backward_leads_back_to_module_and_line() -> None:
    report = profile(build(), steps=1)
    assert report.timeline is not None
    ops = [op for op in report.timeline.trace.ops if op.phase == "backward"]
    products = [op.module for op in ops if op.name == "aten.mm.default"]
    assert products == ["2", "2", "0"]
    losses = [op for op in ops if op.name == "aten.pow.Tensor_Scalar" or op.name == "aten.mul.Tensor"]
    assert losses
    assert all(op.line.endswith(f":{_line_of('loss=lambda output: output.square')}") for op in losses)


def test_steps_that_are_not_watched_take_what_they_need_from_a_twin() -> None:
    some, every = profile(build(), steps=6), profile(build(), steps=6, stacks=True)
    assert some.timeline is not None
    assert every.timeline is not None

    def described(trace: Trace) -> list[tuple[Any, ...]]:
        rows = zip(trace.storage.tolist(), trace.delta.tolist(), trace.op.tolist(), strict=True)
        return [(delta, trace.storages[s].category, trace.storages[s].label, trace.ops[op]) for s, delta, op in rows]

    first, second = described(some.timeline.trace), described(every.timeline.trace)
    assert first == second
    assert {op.step for *_, op in first if op.name == "aten.tanh.default"} == set(range(6))


def test_a_step_that_allocates_differently_is_watched_again() -> None:
    calls = []

    def run(step: Step) -> Any:
        calls.append(0)
        rows = BATCH if len(calls) < 4 else BATCH // 2
        return step.model(step.inputs[:rows]).sum()

    recording = record_steps(lambda: build(run=run), 6, report=lambda number: None).recording
    starts = [*recording.mark_operation.tolist(), len(recording.name)]
    watched = {
        text.partition(" ")[0]
        for text, start, stop in zip(recording.mark_text, starts, starts[1:], strict=False)
        if stop > start
    }
    assert watched == {"-1", "0", "1", "2", "4"}


def test_growth_is_flagged_where_something_is_kept() -> None:
    kept: list[Any] = []

    def leaking(step: Step) -> Any:
        output = step.model(step.inputs)
        kept.append(output)
        return output.sum()

    report = profile(build(run=leaking), steps=6)
    growth = report.extra["growth"]
    assert growth["growing"] is True
    assert growth["bytes_per_step"] >= 4 * BATCH * WIDTH
    assert any("grow" in note for note in report.notes)
    kept.clear()

    def steady(step: Step) -> Any:
        kept[:] = [step.model(step.inputs)]
        return kept[0].sum()

    assert profile(build(run=steady), steps=6).extra["growth"]["growing"] is False


def test_compare_holds_projection_against_measurement() -> None:
    report = profile(f"{__file__}:build", steps=2, compare=True)
    compared = report.extra["compare"]
    assert compared["peak"]["measured"] == report.peak.live
    assert abs(compared["error"]) < 0.02
    assert compared["ops"]["aligned"] > 20
    assert report.projected is not None
    assert report.projected.trace.kind == "projected"


def test_inference_has_no_backward() -> None:
    model = torch.nn.Linear(8, 8)
    report = profile((model, torch.randn(2, 8)), steps=2)
    assert report.timeline is not None
    assert {op.phase for op in report.timeline.trace.ops} <= {"build", "forward", "between"}


def test_the_measured_trace_survives_a_file(tmp_path: Path) -> None:
    report = profile(build(), steps=1)
    assert report.timeline is not None
    path = tmp_path / "run.npz"
    report.timeline.trace.save(path)
    again = Trace.load(path)
    assert again.ops == report.timeline.trace.ops
    assert again.storages == report.timeline.trace.storages
    assert timeline(again).peak == report.peak.live


def test_without_a_compiler_the_profiler_gives_the_same_bytes() -> None:
    ours = profile(build(), steps=2)

    def recorded(hook: Any) -> Any:
        recorder = RunRecorder(hook=hook)
        recorder.start()
        step = build()
        recorder.learn(step)
        recorder.begin_step(0)
        recorder.phase(0, "run")
        torch.manual_seed(0)
        loss = step.model(step.inputs).square().mean()
        loss.backward()
        recorder.census.take_gradients(list(step.model.named_parameters()))
        recorder.end_step(0)
        return recorder.finish()

    run = recorded(ProfilerHook())
    again = recorded(RunRecorder().hook)
    assert run.step_peaks == again.step_peaks
    assert run.step_ends == again.step_ends
    known = {(row.label, row.category): row.nbytes for row in run.known if row.block >= 0}
    assert known == {(row.label, row.category): row.nbytes for row in again.known if row.block >= 0}
    assert sum(nbytes for (_, category), nbytes in known.items() if category == "gradients") == WEIGHTS
    assert ours.peak.live > 0


SCRIPT = textwrap.dedent(
    """
    import sys, torch
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=float(sys.argv[1]))
    kept = []
    print("to standard output")
    for number in range(8):
        batch = torch.randn(32, 64)
        optimizer.zero_grad()
        output = model(batch)
        output.sum().backward()
        optimizer.step()
        if "leak" in sys.argv:
            kept.append(output)
        if "raise" in sys.argv:
            raise ValueError("no good")
    sys.exit(0 if __name__ == "__main__" else 5)
    """
)


def test_a_script_is_recorded_step_by_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    argv = list(sys.argv)
    report = profile(str(path), arguments=["0.5"])
    assert sys.argv == argv
    assert "to standard output" not in capsys.readouterr().out
    assert report.timeline is not None
    ops = report.timeline.trace.ops
    assert {op.phase for op in ops if op.step == 3} >= {"forward", "backward", "optimizer"}
    assert report.extra["steps"] == 8
    assert report.extra["growth"]["growing"] is False
    labels = {storage.label: storage.category.value for storage in report.timeline.trace.storages if storage.label}
    assert labels["weight.exp_avg"] == "optimizer_state"
    assert report.categories["parameters"] == 4 * (64 * 64 + 64)
    assert report.categories["inputs"] == 4 * 32 * 64
    grown = profile(str(path), arguments=["0.5", "leak"])
    assert grown.extra["growth"]["growing"] is True
    assert grown.extra["growth"]["bytes_per_step"] == 4 * 32 * 64


def test_a_script_that_raises_or_is_missing_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    with pytest.raises(TargetError, match=r"ValueError: no good at .*train.py:16"):
        profile(str(path), arguments=["0.5", "raise"])
    with pytest.raises(TargetError, match="no file"):
        profile(str(tmp_path / "absent.py"))
    with pytest.raises(TargetError, match="script cannot be compared"):
        profile(str(path), compare=True)


def test_an_error_about_the_step_names_the_target(tmp_path: Path) -> None:
    path = tmp_path / "lossless.py"
    path.write_text(
        "import torch\ndef build():\n    m = torch.nn.Linear(3, 3)\n"
        "    return dict(model=m, inputs=torch.randn(2, 3), optimizer=torch.optim.SGD(m.parameters()))\n"
    )
    with pytest.raises(TargetError, match=r"lossless\.py:build.*no scalar loss") as caught:
        profile(f"{path}:build")
    assert caught.value.target == f"{path}:build"


def test_bad_use_is_a_clear_error() -> None:
    with pytest.raises(TargetError, match="takes no arguments"):
        profile(f"{__file__}:build", arguments=["x"])
    with pytest.raises(DeviceError):
        profile(f"{__file__}:build", device="toaster")
    with pytest.raises(TargetError, match="at least one step"):
        profile(f"{__file__}:build", steps=0)
    with pytest.raises(TargetError, match="RuntimeError"):
        profile((torch.nn.Linear(3, 3), torch.randn(2, 4)))
    with pytest.raises(DeviceError, match="meta"):
        profile((torch.nn.Linear(3, 3, device="meta"), torch.randn(2, 3)))


def test_the_command_prints_one_object(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = "import sys; from memfit.cli.main import main; sys.argv[0] = 'memfit'; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "profile", "--json", str(path), "0.5"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 8
    assert "to standard output" in done.stderr
