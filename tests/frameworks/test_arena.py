"""The arena's step: the program's bits, no allocation in a steady step, and what may change between calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_models import MODELS  # noqa: E402

import memfit  # noqa: E402
from memfit.errors import CaptureError, VerifyError  # noqa: E402
from memfit.frameworks.torch import allocator_hook, arena_allocator, arena_memory  # noqa: E402
from memfit.frameworks.torch.arena_rehearsal import same_bits  # noqa: E402
from memfit.frameworks.torch.output_form import taken_apart  # noqa: E402
from memfit.ir.step import Step  # noqa: E402

needs_hook = pytest.mark.skipif(not allocator_hook.is_available(), reason="no C++ compiler for the allocator hook")


def eager(model: Any, inputs: Any) -> Any:
    with torch.no_grad():
        return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def assert_same(got: Any, wanted: Any) -> None:
    left, right = taken_apart(got)[0], taken_apart(wanted)[0]
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert same_bits(a, b) if isinstance(b, torch.Tensor) else a == b


def allocations(run: Callable[[], Any]) -> int:
    """Blocks that torch's CPU allocator handed out while ``run`` ran, beside those alive before."""
    with allocator_hook.installed():
        allocator_hook.start_recording(operations=False)
        allocator_hook.mark("here")
        run()
        found = allocator_hook.stop_recording()
    return int((found.delta[int(found.mark_event[0]) :] > 0).sum())


@pytest.mark.parametrize("name", MODELS)
def test_steady_step_has_the_same_bits_and_allocates_nothing(name: str) -> None:
    torch.manual_seed(0)
    step = MODELS[name]()
    step.model.eval()
    run = memfit.arena(step.model, step.inputs)
    for shift in range(2):
        inputs = {
            key: value.add(shift) if value.dtype.is_floating_point else value.clone()
            for key, value in step.inputs.items()
        }
        assert_same(run(inputs), eager(step.model, inputs))
    report = run.report
    assert report.lower_bound <= report.arena < report.sum
    if report.served:
        assert allocations(lambda: eager(step.model, step.inputs)) > 10  # the meter sees allocations
        assert allocations(lambda: (run(step.inputs), None)) == 0
        assert run.missed == 0


def small() -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(24, 48), torch.nn.GELU(), torch.nn.LayerNorm(48), torch.nn.Linear(48, 7), torch.nn.Softmax(-1)
    )


def test_outputs_lie_in_the_arena_until_the_next_call_unless_copied() -> None:
    model, first, second = small(), torch.randn(3, 24), torch.randn(3, 24)
    run = memfit.arena(model, first)
    kept, copied = run(first), run(first, copy=True)
    assert same_bits(kept, copied)
    run(second)
    assert same_bits(kept, eager(model, second))
    assert same_bits(copied, eager(model, first))


def test_other_shapes_are_planned_as_they_come_and_share_the_memory() -> None:
    model = small()
    run = memfit.arena(model, torch.randn(2, 24))
    for rows in (9, 2, 64, 9, 2):
        given = torch.randn(rows, 24)
        assert same_bits(run(given), eager(model, given))
    given = torch.randn(24, 5).t()  # strides are part of a shape
    assert same_bits(run(given), eager(model, given))


def test_parameters_changed_in_place_and_replaced_ones_are_used() -> None:
    model, given = small(), torch.randn(3, 24)
    run = memfit.arena(model, given)
    with torch.no_grad():
        model[0].weight.mul_(2.0)
    assert same_bits(run(given), eager(model, given))
    model[0].weight = torch.nn.Parameter(torch.randn(48, 24))
    assert same_bits(run(given), eager(model, given))


def test_dropout_draws_what_the_program_would_draw() -> None:
    model, given = torch.nn.Sequential(torch.nn.Linear(24, 24), torch.nn.Dropout(0.5)), torch.randn(64, 24)
    before = torch.get_rng_state()
    run = memfit.arena(model, given)
    assert torch.equal(torch.get_rng_state(), before)
    for seed in (3, 4):
        torch.manual_seed(seed)
        wanted = eager(model, given)
        torch.manual_seed(seed)
        assert same_bits(run(given), wanted)
    if run.report.served:
        assert allocations(lambda: (run(given), None)) == 0


def test_batch_norm_in_training_mode_moves_its_statistics_once_a_call() -> None:
    def built() -> Any:
        torch.manual_seed(2)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())

    mine, theirs, given = built(), built(), torch.randn(4, 3, 9, 9)
    run = memfit.arena(mine, given)
    for _ in range(3):
        assert same_bits(run(given), eager(theirs, given))
        assert same_bits(mine[1].running_mean, theirs[1].running_mean)


class Looks(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.relu(x) * 2 if x.sum() > 0 else torch.tanh(x) - 1


def test_each_way_through_control_flow_has_its_plan() -> None:
    model, up = Looks(), torch.rand(5, 5)
    run = memfit.arena(model, up)
    for given in (up, -up, up + 1, -up - 1):
        assert same_bits(run(given), eager(model, given))


class Aliases(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Any) -> Any:
        made = x @ self.weight
        return {"input": x, "view": x.t(), "weight": self.weight, "made": made, "again": made[1:], "number": 7}


def test_outputs_may_be_inputs_parameters_views_and_plain_values() -> None:
    model, given = Aliases(), torch.randn(4, 4)
    run = memfit.arena(model, given)
    other = torch.randn(4, 4)
    assert_same(run(other), eager(model, other))
    assert run(other)["input"].data_ptr() == other.data_ptr()


def test_without_the_compiled_allocator_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_allocator, "is_available", lambda: False)
    step = MODELS["bert"]()
    step.model.eval()
    run = memfit.arena(step)
    assert_same(run(step.inputs), eager(step.model, step.inputs))
    assert not run.report.served
    assert run.report.forms["copied"] > 0


@needs_hook
def test_an_op_that_allocates_otherwise_than_rehearsed_is_copied_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = small(), torch.randn(3, 24)
    real = arena_allocator.PlannedCalls

    def off_by_a_bit(rows: Any) -> Any:
        return real([[(nbytes + 64, address) for nbytes, address in row] for row in rows])

    monkeypatch.setattr("memfit.frameworks.torch.arena.arena_allocator.PlannedCalls", off_by_a_bit)
    run = memfit.arena(model, given)
    assert run.report.forms["served"] > 0
    assert same_bits(run(given), eager(model, given))
    assert run.missed > 0


@needs_hook
def test_the_hook_can_go_and_come_around_an_arena() -> None:
    model, given = small(), torch.randn(3, 24)
    run = memfit.arena(model, given)
    for _ in range(3):
        allocator_hook.install()
        assert same_bits(run(given), eager(model, given))
        allocator_hook.uninstall()
        assert same_bits(run(given), eager(model, given))


def test_order_makes_the_arena_no_larger_and_changes_no_bit() -> None:
    step = MODELS["mixtral"]()
    step.model.eval()
    own, ordered = memfit.arena(step), memfit.arena(step, order=True)
    assert ordered.report.arena <= own.report.arena
    assert_same(ordered(step.inputs), eager(step.model, step.inputs))


def test_a_fused_fast_path_is_refused_unless_other_bits_will_do() -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model, given = torch.nn.TransformerEncoder(layer, 2).eval(), torch.randn(2, 7, 16)
    with pytest.raises(VerifyError, match="exact=False"):
        memfit.arena(model, given)
    torch.testing.assert_close(memfit.arena(model, given, exact=False)(given), eager(model, given))


class Writes(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x.add_(1) * 2


def test_building_leaves_inputs_as_they_were_and_a_call_changes_them_once() -> None:
    given = torch.zeros(5)
    run = memfit.arena(Writes(), given)
    assert torch.equal(given, torch.zeros(5))
    assert torch.equal(run(given), torch.full((5,), 2.0))
    assert torch.equal(given, torch.ones(5))


def test_refusals_say_why() -> None:
    with pytest.raises(CaptureError, match=r"torch\.nn\.Module"):
        memfit.arena(lambda x: x, torch.ones(2))
    run = memfit.arena(small(), torch.randn(2, 24))
    with pytest.raises(TypeError, match="not both"):
        run(torch.ones(2, 24), mask=1)


def test_memory_grows_and_never_shrinks() -> None:
    memory = arena_memory.ArenaMemory()
    assert memory.grow(4096)
    assert not memory.grow(64)
    tensor = torch.empty(0).set_(memory.storage(64, 256), 0, (64,), (1,))
    tensor.fill_(1.0)
    assert memory.grow(1 << 20)
    assert float(tensor.sum()) == 64.0  # what looks at the smaller one keeps it


def test_a_step_s_labels_and_loss_are_part_of_the_output() -> None:
    model, given = small(), torch.randn(3, 24)
    step = Step(model, given, loss=lambda out: out.sum(), optimizer=torch.optim.SGD(model.parameters(), 0.1))
    assert same_bits(memfit.arena(step)(), eager(model, given))
