"""``memfit.pool`` with torch: tensors from the pool, bit for bit the same results, workers, what is said when it cannot."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

import memfit
from memfit import PoolError, PoolWarning, _core
from memfit.cli.main import main
from memfit.frameworks.torch import allocator_hook

compiled = pytest.mark.skipif(not allocator_hook.is_available(), reason="needs a C++ compiler")


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def losses() -> list[float]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 10))
    optimizer = torch.optim.Adam(model.parameters())
    batch, out = torch.randn(200, 300), []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        out.append(loss.item())
    return out


@compiled
def test_training_is_bit_for_bit_the_same_and_leaves_nothing() -> None:
    plain = losses()
    with memfit.pool():
        before = memfit.pool.statistics()
        assert _core.pool_holds(torch.empty(1 << 16).data_ptr())
        assert losses() == plain
        after = memfit.pool.statistics()
    assert after.allocations > before.allocations
    assert after.live_blocks == before.live_blocks
    assert not _core.pool_holds(torch.empty(1 << 16).data_ptr())


@compiled
def test_a_training_step_becomes_a_plan() -> None:
    with memfit.pool():
        before = memfit.pool.statistics()
        losses()
        assert memfit.pool.statistics().plans > before.plans


@compiled
def test_tensors_that_outlive_it_stay_valid() -> None:
    memfit.pool.install()
    kept = torch.full((1 << 20,), 2.5)
    with pytest.warns(PoolWarning, match="uninstalled while 1 blocks"):
        memfit.pool.uninstall()
    kept.resize_(1 << 21)[1 << 20 :].fill_(2.5)
    assert bool((kept == 2.5).all())
    del kept
    assert memfit.pool.statistics().live_blocks == 0


@compiled
def test_a_measurement_over_the_pool_counts_and_one_under_it_is_refused() -> None:
    with memfit.pool():
        with allocator_hook.installed():
            allocator_hook.reset_peak()
            before = allocator_hook.live_bytes()
            tensor = torch.ones(1 << 18)
            assert allocator_hook.live_bytes() - before == tensor.nbytes
            assert _core.pool_holds(tensor.data_ptr())
            del tensor
            assert allocator_hook.live_bytes() == before
        assert _core.pool_holds(torch.ones(1 << 18).data_ptr())
    with allocator_hook.installed(), pytest.raises(PoolError, match=r"another CPU allocator.*install the pool first"):
        memfit.pool.install()
    assert not memfit.pool.installed
    assert not _core.pool_holds(torch.ones(1 << 18).data_ptr())


@compiled
def test_uninstalled_under_a_measurement_it_serves_no_more() -> None:
    memfit.pool.install()
    with allocator_hook.installed():
        memfit.pool.uninstall()
        assert not _core.pool_holds(torch.ones(1 << 18).data_ptr())
    assert not _core.pool_holds(torch.ones(1 << 18).data_ptr())
    with memfit.pool():
        assert _core.pool_holds(torch.ones(1 << 18).data_ptr())


@compiled
def test_torch_own_profiler_sees_its_blocks() -> None:
    with memfit.pool(), torch.profiler.profile(profile_memory=True) as profile:
        tensor = torch.ones(1 << 18)
        del tensor
    assert max(event.self_cpu_memory_usage for event in profile.key_averages()) >= 1 << 20


@compiled
def test_no_memory_is_an_error_of_torch() -> None:
    with (
        memfit.pool(),
        pytest.raises(RuntimeError, match="can't allocate memory: you tried to allocate 4503599627370496"),
    ):
        torch.empty(1 << 50)


@compiled
def test_torch_imported_later_is_served_and_workers_load() -> None:
    done = run("""
        import memfit
        memfit.pool.install()
        import torch
        from memfit import _core
        from torch.utils.data import DataLoader, TensorDataset
        data = TensorDataset(torch.arange(40_000.0).reshape(40, 1000))
        got = [batch for (batch,) in DataLoader(data, batch_size=10, num_workers=2, multiprocessing_context="fork")]
        print(_core.pool_holds(data.tensors[0].data_ptr()), torch.equal(torch.cat(got), data.tensors[0]))
        print(memfit.pool.statistics().tensors)
    """)
    assert done.stdout == "True True\npool\n", done.stderr


def test_without_a_compiler_malloc_is_told_to_keep_what_is_freed(tmp_path: Path) -> None:
    done = run(
        """
        import ctypes, torch, memfit
        class Info(ctypes.Structure):
            _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "free", "small", "maps", "mapped", *"abcde")]
        info = ctypes.CDLL(None).mallinfo2
        info.restype = Info
        memfit.pool.install()
        print(memfit.pool.statistics().tensors, memfit.pool.statistics().arrays)
        before = info().mapped
        tensor = torch.ones(16 << 20)
        print(info().mapped == before)  # it is not mapped on its own any more
        memfit.pool.uninstall()
        """,
        PATH=str(tmp_path), CXX="", MEMFIT_CACHE=str(tmp_path),
    )  # fmt: skip
    assert done.stdout == "mallopt pool\nTrue\n", done.stderr
    assert done.stderr.count("there is no C++ compiler, so CPU tensors do not come from the pool") == 1


def test_a_torch_that_it_cannot_be_built_against_is_one_clear_message(tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'error: c10/core/CPUAllocator.h: no such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = run(
        """
        import torch, memfit
        try:
            memfit.pool.install()
        except memfit.PoolError as error:
            print(error)
        print(memfit.pool.installed, memfit.pool.statistics().arrays)
        """,
        CXX=str(compiler), MEMFIT_CACHE=str(tmp_path),
    )  # fmt: skip
    message, state = done.stdout.splitlines()
    assert f"this torch ({torch.__version__}) is not supported" in message
    assert "CPUAllocator.h: no such file" in message
    assert "tensors=False" in message
    assert state == "False numpy"


@compiled
def test_a_script_runs_under_the_pool(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\nfrom memfit import _core\n"
        "print(sys.argv[1:], __name__, _core.pool_holds(torch.ones(1 << 16).data_ptr()))\nsys.exit(int(sys.argv[2]))\n"
    )
    command = [sys.executable, "-m", "memfit.cli.main", "run", "--pool", str(script), "--json"]
    done = subprocess.run([*command, "3"], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "['--json', '3'] __main__ True\n", done.stderr
    assert done.returncode == 3
    done = subprocess.run([*command, "0"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0
    assert "memfit: pool:" in done.stderr


def test_a_script_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--pool", "nowhere.py"]) == 2
    assert "no such file" in capsys.readouterr().err
