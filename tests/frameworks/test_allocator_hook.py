"""The allocator hook against torch's own profiler, against threads, and against programs that outlive it."""

from __future__ import annotations

import gc
import os
import random
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from memfit.frameworks.torch import allocator_hook as hook
from memfit.frameworks.torch import hook_library
from memfit.frameworks.torch.hook_library import HookError
from memfit.ir.recording import Scope


def _mlp() -> Callable[[], None]:
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    optimizer, inputs = torch.optim.AdamW(model.parameters()), torch.randn(16, 32)

    def step() -> None:
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _convolution() -> Callable[[], None]:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(inplace=True), torch.nn.MaxPool2d(2)
    )
    optimizer, inputs = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, foreach=True), torch.randn(2, 3, 16, 16)

    def step() -> None:
        model(inputs).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _recurrent() -> Callable[[], None]:
    model, inputs = torch.nn.LSTM(8, 16, 2), torch.randn(5, 2, 8)
    return lambda: model(inputs)[0].sum().backward()


def _transformer() -> Callable[[], None]:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=101, n_positions=32))
    optimizer, tokens = torch.optim.AdamW(model.parameters(), fused=True), torch.randint(0, 101, (2, 16))

    def step() -> None:
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return step


@pytest.mark.parametrize("make", [_mlp, _convolution, _recurrent, _transformer])
def test_events_are_those_of_the_profiler(make: Callable[[], Callable[[], None]]) -> None:
    """Every event of torch's profiler, in order and in bytes, whatever the model."""
    with hook.installed():
        step = make()
        step()
        gc.collect()
        hook.start_recording()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            hook.mark("begin")
            step()
            hook.mark("end")
        recording = hook.stop_recording()
    begin, end = recording.mark_event.tolist()
    ours = recording.delta[begin:end].tolist()
    theirs: list[int] = []

    def walk(node: object) -> None:
        if node.tag.name == "Allocation":  # type: ignore[attr-defined]
            theirs.append(int(node.extra_fields.alloc_size))  # type: ignore[attr-defined]
        for child in node.children:  # type: ignore[attr-defined]
            walk(child)

    roots = profile.profiler.kineto_results.experimental_event_tree()
    for root in sorted(roots, key=lambda node: node.start_time_ns):
        walk(root)
    assert len(ours) > 20
    assert ours == theirs


def test_counts_follow_storages_exactly() -> None:
    with hook.installed():
        base = hook.live_bytes()
        first, second = torch.empty(1000), torch.empty(10, dtype=torch.float64)
        assert hook.live_bytes() - base == 4080
        hook.reset_peak()
        del first
        assert hook.live_bytes() - base == 80
        assert hook.peak_bytes() - base == 4080
        second.resize_(100)
        assert hook.live_bytes() - base == 800
        view = second[1:]
        del second
        assert hook.live_bytes() - base == 800
        assert hook.block_of(view.untyped_storage().data_ptr()) >= 0
        assert hook.block_of(view.untyped_storage().data_ptr() + 8) == -1
        del view
        assert hook.live_bytes() == base


def test_threads_at_once_lose_nothing() -> None:
    """Eight threads allocate, hold, hand over and free at random; the account is exact while and after they do."""
    shared: list[torch.Tensor] = []
    guard = threading.Lock()

    def work(seed: int) -> None:
        draw, mine = random.Random(seed), []
        for _ in range(400):
            action = draw.random()
            if action < 0.5:
                mine.append(torch.empty(draw.randrange(1, 3000), dtype=torch.uint8))
            elif action < 0.7 and mine:
                mine.pop(draw.randrange(len(mine)))
            elif action < 0.85 and mine:
                with guard:
                    shared.append(mine.pop())
            else:
                with guard:
                    if shared:
                        shared.pop(draw.randrange(len(shared)))
            if draw.random() < 0.05:
                torch.ones(64) + 1

    with hook.installed():
        gc.collect()
        hook.start_recording(stacks=True)
        base = hook.live_bytes()
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert hook.live_bytes() - base == sum(tensor.numel() for tensor in shared)
        shared.clear()
        assert hook.live_bytes() == base
        recording = hook.stop_recording()
    assert int(recording.delta.sum()) == base
    order = np.argsort(recording.block, kind="stable")
    blocks, deltas = recording.block[order], recording.delta[order]
    freed = np.nonzero(deltas < 0)[0]
    assert (blocks[freed] == blocks[freed - 1]).all()
    assert (deltas[freed] == -deltas[freed - 1]).all()
    assert len(np.unique(blocks[deltas > 0])) == (deltas > 0).sum()


def test_blocks_outlive_the_hook() -> None:
    hook.install()
    tensor = torch.full((5000,), 7.0)
    live = hook.live_bytes()
    hook.uninstall()
    after = torch.empty(5000)
    assert hook.live_bytes() == live
    assert float(tensor.sum()) == 35000.0
    tensor.resize_(9000)  # its storage still knows the hook's allocator
    del tensor, after
    gc.collect()
    assert hook.live_bytes() <= live - 20000
    hook.install()
    assert hook.live_bytes() == 0
    again = torch.empty(3, dtype=torch.uint8)
    assert hook.live_bytes() == 3
    hook.uninstall()
    del again


def test_lazy_clones_and_storages_from_elsewhere() -> None:
    """Copy-on-write clones, NumPy memory and raw storages live and die as without the hook."""
    with hook.installed():
        base = hook.live_bytes()
        tensor = torch.arange(1000.0)
        clone = torch._lazy_clone(tensor)
        assert hook.live_bytes() - base == 4000
        clone += 1
        assert hook.live_bytes() - base == 8000
        assert float(clone[0]) == 1.0
        assert float(tensor[0]) == 0.0
        outside = torch.from_numpy(np.zeros(1000))
        raw = torch.UntypedStorage(123)
        assert raw.nbytes() == 123
        del tensor, clone, outside, raw
        assert hook.live_bytes() == base


def test_operations_modules_and_lines() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())
    names = {id(module): name for name, module in model.named_modules()}
    with hook.installed():
        hook.start_recording(stacks=True)
        model(torch.randn(2, 4)).sum().backward()
        recording = hook.stop_recording()
    row = recording.name.index("aten::addmm")
    assert names[int(recording.module[row])] == "0"
    assert recording.name[recording.parent[row]] == "aten::linear"
    files = [frame.file for frame in recording.stacks[recording.operation_stack[row]]]
    assert __file__ in files
    node = recording.name.index("ReluBackward0")
    assert recording.scope[node] == Scope.BACKWARD
    sequences = recording.sequence.tolist()
    maker = max(row for row in range(node) if sequences[row] == sequences[node])
    assert recording.name[maker] == "aten::relu"


def test_a_forked_child_allocates_and_frees() -> None:
    with hook.installed():
        held = torch.empty(100)
        child = os.fork()
        if child == 0:
            torch.empty(1000).zero_()
            os._exit(0 if hook.live_bytes() >= 400 else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        del held


def test_a_compiler_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "fake-compiler"
    compiler.write_text("#!/bin/sh\necho 'fatal error: something is missing' >&2\nexit 3\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("MEMFIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(HookError, match="something is missing") as caught:
        hook_library.build()
    assert "status 3" in str(caught.value)
    assert "CXX" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMFIT_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler-anywhere")
    with pytest.raises(HookError, match="no-such-compiler-anywhere"):
        hook_library.build()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HookError, match="no C\\+\\+ compiler"):
        hook_library.build()


def test_the_library_depends_on_its_sources_and_lands_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that writes its output: the file appears under its final name only, and is not built twice."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        "#!/bin/sh\necho run >> " + str(tmp_path / "runs") + "\n"
        'while [ "$1" != "-o" ]; do shift; done\necho built > "$2"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("MEMFIT_CACHE", str(tmp_path / "cache"))
    first = hook_library.build()
    assert first.read_text() == "built\n"
    assert hook_library.build() == first
    assert hook_library.build(("-DOTHER",)) != first
    assert (tmp_path / "runs").read_text() == "run\nrun\n"
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.slow
def test_public_frame_interface_gives_the_same(tmp_path: Path) -> None:
    """What a Python with an unknown frame layout falls back to."""
    program = tmp_path / "program.py"
    program.write_text(
        "import functools, torch\n"
        "from memfit.frameworks.torch import allocator_hook as hook, hook_library\n"
        "build = hook_library.load\n"
        "hook.load = lambda: build(('-DMEMFIT_PUBLIC_FRAMES',))\n"
        "model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())\n"
        "hook.install(); hook.start_recording(stacks=True)\n"
        "model(torch.randn(2, 4)).sum().backward()\n"
        "recording = hook.stop_recording()\n"
        "row = recording.name.index('aten::addmm')\n"
        "assert int(recording.module[row]) == id(model[0])\n"
        "stack = recording.stacks[recording.operation_stack[row]]\n"
        "assert any(frame.file == __file__ and frame.line == 7 for frame in stack)\n"
        "hook.uninstall()\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("calls", [hook.step_calls, hook.ctypes_step_calls])
def test_what_is_called_in_every_step(calls: Callable[[], hook.StepCalls]) -> None:
    """Peak, live bytes, digest and CPU seconds of each step, and marks of phases, however they are called."""
    begin, end, mark_phase = calls()
    with hook.installed():
        hook.start_recording()
        hook.mark("-1 build")
        figures = []
        for number, size in enumerate([1000, 1000, 2000]):
            before = hook.live_bytes()
            begin()
            mark_phase(number, "forward")
            block = torch.empty(size, dtype=torch.uint8)
            mark_phase(number, "between")
            del block
            spent = time.process_time()
            while time.process_time() - spent < 0.01 * (number + 1):
                pass
            peak, live, digest, seconds = end()
            figures.append((peak - before, live - before, digest, seconds))
        recording = hook.stop_recording()
    assert [row[:2] for row in figures] == [(1000, 0), (1000, 0), (2000, 0)]
    assert figures[0][2] == figures[1][2] != figures[2][2]
    assert all(row[3] >= 0.01 * (number + 1) for number, row in enumerate(figures))
    assert recording.mark_text == ("-1 build", *(f"{n} {phase}" for n in range(3) for phase in ("forward", "between")))
    assert np.diff(recording.mark_event).tolist() == [0, 1, 1, 1, 1, 1]
    if calls is hook.step_calls:
        with pytest.raises(TypeError):
            mark_phase("0", "forward")  # type: ignore[arg-type]
