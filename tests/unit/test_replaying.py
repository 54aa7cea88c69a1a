"""`memfit replay` from end to end on files, without a framework: answers, keys, files written, bad input."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memfit
from memfit.allocators.replay import POLICIES, compare, policies_named, smallest_capacity
from memfit.api.replay_sources import requests_of_problem
from memfit.cli.main import main
from memfit.errors import CapacityError, TraceError
from memfit.ir.requests import Action, Requests
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage
from memfit.planners.problem import simple_problem
from memfit.report.replay_page import replay_page
from memfit.report.replay_summary import ReplayReport
from memfit.testing.programs import random_requests

MIB = 1 << 20
PROMISED = {"name", "peak_reserved", "fragmentation", "driver_calls", "smallest_capacity"}
EVENTS = """action,id,size
alloc,weights,4194304
alloc,a,3145728
alloc,b,1048576
free,a,
alloc,c,5242880
free,b,
free,c,
"""


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "events.csv"
    path.write_text(EVENTS, encoding="utf-8")
    return path


def iterations(repeats: int = 6, kept: int = 1) -> Requests:
    """A program of equal iterations, whose blocks fragment an arena, and ``kept`` blocks that stay."""
    rows: list[tuple[int, int, int]] = []
    count = 0
    for _ in range(kept):
        rows.append((Action.ALLOCATE, count, 7 * MIB))
        count += 1
    for _ in range(repeats):
        first = count
        for size in (9, 3, 14, 2, 30, 5):
            rows.append((Action.ALLOCATE, count, size * MIB))
            count += 1
        rows += [(Action.FREE, first + which, 0) for which in (0, 2, 4, 1, 3, 5)]
    table = np.array(rows, np.int64)
    events = len(table)
    return Requests(
        table[:, 0].astype(np.uint8), table[:, 1].copy(), table[:, 2].copy(), np.zeros(events, np.int32),
        np.zeros(events, np.int32), np.full(events, -1, np.int64),
    )  # fmt: skip


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["replay", *arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def test_json_has_the_promised_keys(events: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, str(events), "--json", "--capacity", "12MiB", "--advise", "--static")
    assert code == 0
    assert out.count("\n") == 1
    data = json.loads(out)
    assert data["peak_live"] == 10 * MIB
    assert {row["name"] for row in data["policies"]} == set(POLICIES)
    for row in data["policies"]:
        assert row.keys() >= PROMISED
        assert row["peak_reserved"] >= data["peak_live"]
        assert row["fragmentation"] == pytest.approx(1 - data["peak_live"] / row["peak_reserved"])
        assert data["peak_live"] <= row["smallest_capacity"] <= row["peak_reserved"]
        assert row["fits"] == (row["smallest_capacity"] <= 12 * MIB)
    assert isinstance(data["advice"], str)
    assert data["static"]["lower_bound"] == 10 * MIB
    order = [row["smallest_capacity"] for row in data["policies"]]
    assert order == sorted(order)


def test_the_terminal_answers_first(events: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, str(events), "--policies", "first-fit, torch", "--capacity", "14MiB")
    assert (code, err) == (0, "")
    assert out.startswith("Peak live 10.0 MiB recorded; the allocators reserve up to 22.0 MiB (torch);")
    lines = [line.split() for line in out.splitlines()]
    assert ["first-fit", "13.0"] in [line[:2] for line in lines]
    assert "worst-fit" not in out


def test_check_turns_no_into_1(events: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = (str(events), "--policies", "torch", "--capacity", "14MiB")
    assert run(capfd, *arguments)[0] == 0
    assert run(capfd, *arguments, "--check")[0] == 1


def test_lifetimes_are_replayed_frees_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,lower,upper,size\nx,0,2,1048576\ny,2,4,1048576\nz,1,3,1048576\n", encoding="utf-8")
    code, out, _ = run(capfd, str(path), "--json", "--policies", "first-fit")
    assert code == 0
    assert json.loads(out)["peak_live"] == 2 * MIB
    requests = requests_of_problem(simple_problem([0, 2, 1], [2, 4, 3], [5, 6, 7]))
    assert requests.action.tolist() == [0, 0, 1, 0, 1, 1]
    assert requests.block.tolist() == [0, 1, 0, 2, 1, 2]
    assert requests.nbytes.tolist() == [5, 7, 0, 6, 0, 0]


def test_what_only_a_planner_can_use_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,lower,upper,size,gaps,offset\nx,0,9,64,2-4,-1\ny,2,4,64,,128\n", encoding="utf-8")
    code, out, _ = run(capfd, str(path), "--json", "--policies", "best-fit")
    assert code == 0
    data = json.loads(out)
    assert data["peak_live"] == 128
    assert [note.split()[0] for note in data["notes"]] == ["gaps", "pins"]


def saved_trace(path: Path, **changed: Any) -> Path:
    storages = tuple(TraceStorage(4096 * (i + 1), Category.ACTIVATIONS, 0, (1,), "float32") for i in range(3))
    columns = {
        "storage": np.array([0, 1, 0, 2]), "delta": np.array([4096, 8192, -4096, 12288]), "op": np.zeros(4, np.int64)
    }  # fmt: skip
    columns.update(changed)
    Trace("measured", (TraceOp("op"),), storages, **columns).save(path)
    return path


def test_a_saved_trace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, str(saved_trace(tmp_path / "trace.npz")), "--json")
    assert code == 0
    data = json.loads(out)
    assert (data["kind"], data["peak_live"], data["events"]) == ("measured", 20480, 4)


class Hostile:
    def __reduce__(self) -> Any:
        return (print, ("EXECUTED",))


BAD = {
    "empty.csv": (b"", "is empty"),
    "cut.csv": (EVENTS[:60].encode(), "was the file cut off?"),
    "double.csv": (b"action,id,size\nalloc,a,5\nfree,a,\nfree,a,\n", "line 4: 'a' is freed twice"),
    "unknown.csv": (b"action,id,size\nalloc,a,5\nfree,b,\n", "never allocated"),
    "zero.csv": (b"action,id,size\nalloc,a,0\n", "a size of 0 bytes"),
    "negative.csv": (b"action,id,size\nalloc,a,-7\n", "a size of -7 bytes"),
    "huge.csv": (b"action,id,size\nalloc,a,1000000000000000000\n", "sizes are 1 byte to below 10^12 bytes"),
    "reversed.csv": (b"id,lower,upper,size\na,5,2,10\n", "line 2"),
    "binary.csv": (b"\x00\xff\xfe\x00", "no text"),
    "cut.npz": (b"PK\x03\x04 cut", "cannot read"),
    "noise.npz": (b"nothing", "cannot read"),
    "hostile.pickle": (pickle.dumps(Hostile()), "cannot read"),
    "cut.pickle": (pickle.dumps({"segments": [], "device_traces": []})[:-5], "cannot read"),
    "other.pickle": (pickle.dumps([1, 2, 3]), "cannot read"),
    "graph.json": (b'{"ops": []}', "cannot"),
    "cut.json": (b'{"ops": [', "cannot read"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_message_and_exit_2(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, said = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    code, out, err = run(capfd, str(path), "--json")
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert "EXECUTED" not in out + err
    assert "Traceback" not in err
    assert "bug" not in err
    assert json.loads(out)["error"]["message"]


@pytest.mark.parametrize(
    "changed",
    [{"storage": np.array([0, 9, 0, 2])}, {"storage": np.array([0, -1, 0, 2])}, {"delta": np.array([4096, 1])},
     {"delta": np.array([1.5, 2.5, -1.5, 3.0])}, {"delta": np.array([4096, 1 << 60, -4096, 5])},
     {"delta": np.zeros(4, np.int64)}],
)  # fmt: skip
def test_damaged_traces_are_refused(changed: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, str(saved_trace(tmp_path / "trace.npz", **changed)))
    assert code == 2
    assert "bug" not in err


def test_wrong_use_is_exit_2(events: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--capacity", "4MiB"], "does not fit 4.00 MiB"),
        (["--capacity", "-1"], "not a size"),
        (["--policies", "tosch"], "did you mean torch?"),
        (["--policies", ","], "names no policy"),
        (["--device", "nonsense"], "device 'nonsense'"),
        (["--set", "a=1"], "a file takes no settings"),
        (["--html", "/nowhere/x.html"], "cannot write"),
    ):
        code, _, err = run(capfd, str(events), *arguments)
        assert code == 2, arguments
        assert said in err
    assert run(capfd, "none.csv")[0] == 2
    assert run(capfd)[0] == 2


def test_capacity_below_the_largest_names_who(events: Path) -> None:
    with pytest.raises(CapacityError) as caught:
        memfit.replay(events, capacity=4 * MIB)
    assert caught.value.infeasible == ("c",)
    assert caught.value.needed == 5242880


@pytest.mark.parametrize("key", [key for key in POLICIES if not key.startswith("torch")])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_smallest_capacity_works_and_a_step_less_does_not(key: str, seed: int) -> None:
    requests = random_requests(seed, 400, 25)
    policy = POLICIES[key]
    free = policy.replay(requests)
    smallest, there = smallest_capacity(policy, requests)
    assert there.failed is None
    assert there.peak_reserved <= smallest <= free.peak_reserved
    step = max(512, (free.peak_reserved - free.peak_live) // 4096)
    below = smallest - 2 * step
    assert below < free.peak_live or policy.replay(requests, below).failed is not None


def test_compare_is_in_order_and_names_are_checked() -> None:
    results = compare(random_requests(5, 300), policies_named(["worst-fit", "buddy", "best-fit"]), 100 * MIB)
    assert [result.smallest_capacity for result in results] == sorted(result.smallest_capacity for result in results)
    for result in results:
        live, allocated, reserved = result.at_peak
        assert live <= allocated <= reserved == result.unlimited.peak_reserved
        assert (1 - result.internal) * (1 - result.external) == pytest.approx(live / reserved)
        assert result.at_capacity is not None
    with pytest.raises(TraceError, match="did you mean best-fit"):
        policies_named(["bestfit"])


def test_stranded_bytes_are_those_between_the_blocks() -> None:
    report = memfit.replay(iterations(), policies=["first-fit", "bfc", "size-classes", "onnx-arena-exact"])
    for row in report.policies:
        reserved = row.at_peak[2]
        if len(row.stranded) < 20:
            assert sum(hole.free_bytes for hole in row.stranded) >= reserved - row.peak_allocated
        for hole in row.stranded:
            assert 0 < hole.largest_hole <= hole.free_bytes <= hole.segment_bytes
            assert hole.why


def test_static_against_dynamic_finds_the_iterations() -> None:
    found = memfit.replay(iterations(), static=True).static
    assert found is not None
    assert (found.period, found.repeats) == (12, 6)
    names = [contender.name.split(":")[0] for contender in found.contenders]
    assert names == ["dynamic", "dynamic", "static plan of the whole trace", "mixed"]
    mixed, static = found.contenders[3], found.contenders[2]
    assert static.peak == found.bound == 70 * MIB
    assert mixed.static_bytes == 63 * MIB
    assert 70 * MIB <= mixed.peak <= 63 * MIB + 8 * MIB  # what stays: 7 MiB, in granules of 2 MiB
    assert mixed.static_share == pytest.approx(36 / 37)
    assert found.recommendation


def test_the_page_is_small_whole_and_shows_names_as_text(events: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = events.parent / "page.html"
    assert run(capfd, str(events), "--html", str(page), "--advise", "--static")[0] == 0
    text = page.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert re.findall(r"<(?:script|link|img|iframe)\b", text) == []
    assert "http" not in text.replace("http-equiv", "")
    for heading in (
        "What each allocator takes",
        "The whole run",
        "Policies",
        "Settings of torch",
        "Static against dynamic",
    ):
        assert heading in text
    hostile = ReplayReport("<script>alert(1)</script>", "recorded", "cpu", 1, 1, 1, 1, ())
    assert "<script>" not in replay_page(hostile)


def test_the_picture_is_a_png(events: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = events.parent / "picture.png"
    assert run(capfd, str(events), "--png", str(path))[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "page.html" not in [entry.name for entry in events.parent.iterdir()]


SNAPSHOTS = Path(__file__).parent.parent / "data" / "snapshots"


@pytest.mark.parametrize("name", ["fixed", "expandable"])
def test_a_snapshot_is_checked_against_its_addresses(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, str(SNAPSHOTS / f"{name}.pickle.gz"), "--json")
    assert code == 0
    data = json.loads(out)
    assert data["mismatches"] == 0
    assert data["addresses"]["checked"] > 1000
    names = [row["name"] for row in data["policies"]]
    assert ("torch-as-recorded" in names) == (name == "expandable")
    code, out, _ = run(capfd, str(SNAPSHOTS / f"{name}.pickle.gz"), "--policies", "first-fit")
    assert out.startswith(f"All {data['addresses']['checked']} recorded addresses are those of the replay.")


def test_a_device_gives_the_capacity() -> None:
    report = memfit.replay(iterations(), device="a100", policies=["first-fit"])
    assert report.capacity is not None
    assert report.fits
