"""Domains and segments under torch's tensors."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import memfit  # noqa: E402
from memfit.errors import DomainBudgetError, SegmentError  # noqa: E402
from memfit.frameworks.torch import allocator_hook  # noqa: E402
from memfit.frameworks.torch.segment_tensors import tensor_over, weights_of  # noqa: E402
from memfit.runtime.segments import FAULT_EXIT  # noqa: E402

MIB = 1 << 20
needs_compiler = pytest.mark.skipif(not allocator_hook.is_available(), reason="no C++ compiler for the allocator")


@needs_compiler
def test_tensors_are_charged_refused_and_credited() -> None:
    with memfit.domain("tensors a", budget="8MiB") as a:
        x = torch.zeros(MIB)
        for refused in (
            lambda: torch.zeros(2 * MIB),
            lambda: torch.cat([x, x]),
            lambda: torch.ops.aten.mul.Tensor(torch.ones(MIB // 2), torch.ones(MIB, 1)[:MIB].view(-1, 1)),
        ):
            with pytest.raises(DomainBudgetError) as caught:
                refused()
            assert caught.value.name == "tensors a"
            assert caught.value.used + caught.value.needed > 8 * MIB
        gc.collect()
        assert a.usage.used == 4 * MIB
        assert a.usage.blocks == 1
    with memfit.domain("tensors b") as b:
        y = torch.zeros(8 * MIB)  # the other goes on
        x = None
    assert (a.usage.used, b.usage.used) == (0, 32 * MIB)
    del y
    assert b.usage.used == 0


@needs_compiler
def test_a_backward_pass_charges_who_called_it_and_may_be_refused() -> None:
    model, given = torch.nn.Linear(512, 512), torch.randn(64, 512)
    with memfit.domain("forward"):
        loss = model(given).relu().sum()
    before = memfit.domain("forward").usage.used
    with memfit.domain("backward") as backward:
        loss.backward()
    gradients = 4 * (512 * 512 + 512)
    assert backward.usage.used == gradients
    assert memfit.domain("forward").usage.used <= before
    model.zero_grad()
    with memfit.domain("small backward", budget="1MiB"), pytest.raises(DomainBudgetError):
        model(given).sum().backward()


@needs_compiler
def test_autograd_s_own_threads_charge_who_launched_them() -> None:
    class Threads(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: object, g: torch.Tensor) -> torch.Tensor:
            inner = torch.ones(1000, requires_grad=True)
            with torch.enable_grad():
                (inner * 2).sum().backward()  # a pass inside of a pass
            assert inner.grad is not None
            return g * inner.grad[0]

    x = torch.ones(MIB, requires_grad=True)
    loss = Threads.apply(x).sum()
    with memfit.domain("engine") as engine:
        loss.backward()
    assert x.grad is not None
    assert engine.usage.used >= 4 * MIB


@needs_compiler
def test_other_threads_and_other_frees() -> None:
    held: dict[str, torch.Tensor] = {}

    def tenant() -> None:
        with memfit.domain("of a thread"):
            held["x"] = torch.zeros(1000)

    thread = threading.Thread(target=tenant)
    thread.start()
    with memfit.domain("of the main thread") as mine:
        thread.join()
        assert mine.usage.used == 0
        assert memfit.domain("of a thread").usage.used == 4000
        del held["x"]
    assert memfit.domain("of a thread").usage.used == 0


@needs_compiler
def test_domain_hook_and_arena_stand_on_one_another_in_any_order() -> None:
    model, given = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64)), torch.randn(8, 64)
    with torch.no_grad():
        wanted = model(given)
    allocator_hook.install()
    try:
        with memfit.domain("stacked") as tenant:
            run = memfit.arena(model, given)
            allocator_hook.uninstall()
            steady = tenant.usage.charges
            for _ in range(3):
                assert torch.equal(run(given), wanted)
            assert tenant.usage.charges == steady  # nothing of a step is an allocation
            assert tenant.usage.used >= run.report.arena
            allocator_hook.install()
            kept = torch.zeros(1000)
            assert allocator_hook.live_bytes() >= 4000
        assert torch.equal(run(given), wanted)
        allocator_hook.uninstall()
        allocator_hook.install()
        before = tenant.usage.used
        del kept
        assert tenant.usage.used == before - 4000
    finally:
        allocator_hook.uninstall()


def test_tensors_over_a_segment_share_its_memory_and_its_limit() -> None:
    segment = memfit.Segment("optimizer state", 4096)
    first = tensor_over(segment, (4, 8), torch.bfloat16)
    second = tensor_over(segment, 10, torch.float64)
    first.fill_(1.5)
    second.fill_(2.0)
    assert second.data_ptr() == segment.base + 64
    assert segment.read(0, 2) == b"\xc0\x3f"
    with pytest.raises(SegmentError, match="past the limit of 4096"):
        tensor_over(segment, 4096, torch.float64)
    assert tensor_over(segment, (0, 3)).shape == (0, 3)


def test_a_model_runs_on_mapped_weights_and_cannot_write_to_them(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)).requires_grad_(False)
    path = tmp_path / "model.safetensors"
    safetensors.save_file(model.state_dict(), path)
    given = torch.randn(3, 16)
    wanted = model(given)
    weights = memfit.WeightSegment(path)
    model.load_state_dict(weights_of(weights), assign=True)
    low, high = weights.base, weights.base + weights.limit
    assert all(low <= p.data_ptr() < high for p in model.parameters())
    assert torch.equal(model(given), wanted)
    code = f"""
import torch, memfit
from memfit.frameworks.torch.segment_tensors import weights_of
weights = weights_of(memfit.WeightSegment({str(path)!r}))
print(float(weights["0.weight"].sum()), flush=True)
weights["0.weight"].mul_(2.0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == FAULT_EXIT, done.stderr
    assert "write out of bounds or against the protection of segment 'weights'" in done.stderr
    assert "which is read-only" in done.stderr


@needs_compiler
def test_under_the_pool_blocks_are_charged_refused_and_credited_after_it_left() -> None:
    program = textwrap.dedent("""
        import gc
        import numpy, torch, memfit
        from memfit import _core

        memfit.pool.install()
        with memfit.domain("tenant", budget="8MiB") as tenant:
            tensor, array = torch.zeros(1 << 20), numpy.zeros(1 << 18)
            assert tenant.usage.used == 6 << 20, tenant.usage
            assert _core.pool_holds(tensor.data_ptr()) and _core.pool_holds(array.ctypes.data)
            try:
                torch.zeros(1 << 20)
            except memfit.DomainBudgetError as refused:
                assert refused.name == "tenant" and refused.used == 6 << 20, refused
            else:
                raise AssertionError("more than the budget")
        outside = torch.zeros(8 << 20)
        assert tenant.usage.used == 6 << 20
        memfit.pool.uninstall()
        del tensor, array
        gc.collect()
        assert tenant.usage.used == 0 and tenant.usage.blocks == 0, tenant.usage

        with memfit.domain("late"):
            kept = torch.zeros(10)
            try:
                memfit.pool.install()
            except memfit.PoolError as refused:
                assert "first" in str(refused), refused
            else:
                raise AssertionError("the pool went under a domain that was there before it")
    """)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
