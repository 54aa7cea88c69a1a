"""Training from a data set larger than a hard memory limit, killed and resumed; ranks that change over a resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

from memfit.data import convert

pytest.importorskip("torch")

TRAIN = """
import json, os, sys
import numpy as np, torch
from memfit.data import Dataset, Loader, normalize
folder, state_file, budget, access, kill = sys.argv[1:6]
group = sys.argv[6] if len(sys.argv) > 6 else ""
torch.set_num_threads(1); torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(1024, 32), torch.nn.GELU(), torch.nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
x, y = torch.zeros(4, 1024), torch.zeros(4)
model(x).sum().backward(); optimizer.zero_grad()   # the framework's own memory, before the limit
if group:
    open(group + "/cgroup.procs", "w").write(str(os.getpid()))
loader = Loader(folder, 256, {"x": [normalize()]}, shuffle=2, seed=1, output="torch", tuples=True, threads=1,
                columns=["x", "y"], access=access, memory_budget=budget or None)
losses = []
if os.path.exists(state_file):
    saved = torch.load(state_file)
    model.load_state_dict(saved["model"]); loader.load_state_dict(saved["loader"]); losses = saved["losses"]
for x, y in loader:
    loss = torch.nn.functional.mse_loss(model(x)[:, 0], y)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    losses.append(loss.item())
    if len(losses) % 10 == 0 and kill:
        torch.save({"model": model.state_dict(), "loader": loader.state_dict(), "losses": losses}, state_file + ".new")
        os.replace(state_file + ".new", state_file)
    if kill and len(losses) == int(kill):
        os.kill(os.getpid(), 9)
print(json.dumps(losses))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40,000 rows of 4 KiB: 164 MB, four times the budget below."""
    place = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40_000, 1024), dtype=np.float32)
    np.savez(place / "a.npz", x=x, y=x[:, :8].sum(1))
    return convert(place / "a.npz", place / "set").folder


def train(
    folder: Path, state: Path, budget: str, access: str, kill: str = "", group: str = ""
) -> subprocess.CompletedProcess[str]:
    arguments = [
        sys.executable,
        "-c",
        TRAIN,
        str(folder),
        str(state),
        budget,
        access,
        kill,
        *([group] if group else []),
    ]
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[float]:
    """The losses of a run in memory."""
    return list(json.loads(train(folder, folder / "none", "", "mapped").stdout))


def test_a_killed_training_goes_on_with_the_same_losses(folder: Path, whole: list[float], tmp_path: Path) -> None:
    killed = train(folder, tmp_path / "state", "", "mapped", kill="37")
    assert killed.returncode == -signal.SIGKILL
    resumed = json.loads(train(folder, tmp_path / "state", "", "mapped").stdout)
    assert resumed == whole
    assert len(whole) == 157


def test_under_a_hard_limit_the_losses_are_the_same(folder: Path, whole: list[float], tmp_path: Path) -> None:
    root = Path("/sys/fs/cgroup/memory")
    group = root / f"memfit-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(60 << 20))
    except OSError:
        pytest.skip("no memory controller (version 1) that may be used here")
    try:
        limited = train(folder, tmp_path / "none", "40MiB", "direct", group=str(group))
        assert limited.returncode == 0, limited.stderr[-500:]
        assert json.loads(limited.stdout) == whole
        assert int((group / "memory.max_usage_in_bytes").read_text()) <= 60 << 20
    finally:
        group.rmdir()


RANK = """
import json, sys
import torch.distributed as dist
from memfit.data import Loader
folder, rendezvous, rank, ranks, batches, state = sys.argv[1:]
dist.init_process_group("gloo", init_method="file://" + rendezvous, rank=int(rank), world_size=int(ranks))
loader = Loader(folder, 30, shuffle=True, seed=9, output="torch", columns=["y"])
if state: loader.load_state_dict(json.loads(state))
assert (loader.rank, loader.ranks) == (int(rank), int(ranks))
seen = []
for batch in loader:
    seen += batch["y"].tolist()
    if len(seen) == 30 * int(batches): break
print(json.dumps([seen, loader.state_dict()]))
dist.destroy_process_group()
"""


def run_ranks(folder: Path, tmp_path: Path, ranks: int, batches: int, state: str) -> list[list[object]]:
    place = str(tmp_path / f"meet-{ranks}")
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(folder), place, str(r), str(ranks), str(batches), state],
            stdout=subprocess.PIPE,
            text=True,
        )
        for r in range(ranks)
    ]
    return [json.loads(child.communicate()[0]) for child in children]


def test_gloo_ranks_meet_no_row_twice_over_a_change_of_their_number(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.arange(1000))
    folder = convert(tmp_path / "y.npy", tmp_path / "set").folder
    before = run_ranks(folder, tmp_path, 2, 7, "")
    assert before[0][1] == before[1][1]
    after = run_ranks(folder, tmp_path, 3, 10**6, json.dumps(before[0][1]))
    seen = [row for part in (*before, *after) for row in part[0]]  # type: ignore[attr-defined]
    assert sorted(seen) == list(range(1000))
