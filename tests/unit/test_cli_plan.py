"""`memfit plan` from end to end on files, without a framework: answers, exit codes, files, messages."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memfit.cli.main import main
from memfit.ir.graph import Graph, Op, Storage
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage
from memfit.planners.plan_file import load_plan
from memfit.planners.table import read_table

EXAMPLE = "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("input.12.csv").write_text(EXAMPLE)
    Path("free.csv").write_text(EXAMPLE)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["plan", *arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def answer(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    found, out, _ = run(capfd, *arguments, "--json")
    assert found == code
    assert out.count("\n") == 1
    return dict(json.loads(out))


def test_the_answer_stands_first(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "input.12.csv")
    assert (code, err) == (0, "")
    assert out.startswith("Peak 12 B (12 bytes), by size/best: proved optimal; fits 12 B: yes\n")
    assert "Lower bound 12 B (12 bytes), from the load: 3 buffers alive at instant 0." in out
    assert "order/fit are greedy" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_the_promised_keys(capfd: pytest.CaptureFixture[str]) -> None:
    data = answer(capfd, "free.csv", "--offsets")
    assert data["lower_bound"] == 12
    assert {"strategy", "peak", "optimal", "seconds"} <= set(data["best"])
    assert data["best"]["peak"] == 12
    assert data["best"]["optimal"] is True
    assert data["strategies"][0] == data["best"]
    assert len(data["strategies"]) >= 12
    assert {name for name, _ in data["placement"]} == {"b1", "b2", "b3", "b4", "b5"}
    assert all(isinstance(offset, int) for _, offset in data["placement"])
    assert "placement" not in answer(capfd, "free.csv")
    assert "infeasible" not in data
    assert answer(capfd, "free.csv", "--capacity", "12")["infeasible"] == []


@pytest.mark.parametrize("capacity", ["11", "8"])
def test_a_capacity_that_cannot_be_kept_is_2_with_the_set_and_the_bound(
    capfd: pytest.CaptureFixture[str], capacity: str
) -> None:
    data = answer(capfd, "free.csv", "--capacity", capacity, code=2)
    assert (data["fits"], data["lower_bound"], data["error"]["kind"]) == (False, 12, "CapacityError")
    assert {"b1", "b2", "b3", "b4", "b5"} > set(data["infeasible"]) != set()
    code, out, err = run(capfd, "free.csv", "--capacity", capacity)
    assert (code, err) == (2, "")
    assert f"It cannot fit {capacity} bytes: at least 12 are needed." in out
    assert data["infeasible"][0] in out


def test_a_capacity_below_the_largest_buffer(capfd: pytest.CaptureFixture[str]) -> None:
    data = answer(capfd, "free.csv", "--capacity", "3", code=2)
    assert (data["fits"], data["lower_bound"], data["infeasible"]) == (False, 4, ["b1"])
    assert "this buffer alone cannot fit: b1" in data["error"]["message"]


def test_the_capacity_of_the_name_is_kept_or_set_aside(capfd: pytest.CaptureFixture[str]) -> None:
    Path("input.11.csv").write_text(EXAMPLE)
    assert answer(capfd, "input.11.csv", code=2)["capacity"] == 11
    assert answer(capfd, "input.11.csv", "--capacity", "1KiB")["capacity"] == 1024
    assert "capacity" not in answer(capfd, "input.11.csv", "--capacity", "none")


def test_plans_are_written_and_read_again(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "free.csv", "--out", "plan.json", "--html", "p.html")
    assert code == 0
    assert out.splitlines()[-2:] == ["wrote p.html", "wrote plan.json"]
    plan = load_plan("plan.json")
    assert plan.placement.peak == 12
    assert answer(capfd, "plan.json")["best"]["peak"] == 12
    run(capfd, "free.csv", "--out", "placed.csv")
    placed = read_table("placed.csv")
    assert int((placed.offset + placed.size).max()) == 12
    pinned = answer(capfd, "placed.csv", "--offsets")
    assert [offset for _, offset in pinned["placement"]] == placed.offset.tolist()


def test_a_plan_that_breaks_the_capacity_is_not_written(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "free.csv", "--capacity", "11", "--out", "plan.json")[0] == 2
    assert not Path("plan.json").exists()


def test_strategies_alignment_and_memories(capfd: pytest.CaptureFixture[str]) -> None:
    data = answer(capfd, "free.csv", "--strategies", "size/best, area/first")
    assert sorted(row["strategy"] for row in data["strategies"]) == ["area/first", "size/best"]
    aligned = answer(capfd, "free.csv", "--alignment", "64", "--offsets")
    assert all(offset % 64 == 0 for _, offset in aligned["placement"])
    two = answer(capfd, "free.csv", "--memories", "sram:8,dram", "--offsets")
    assert [row["name"] for row in two["memories"]] == ["sram", "dram"]
    assert two["memories"][0]["peak"] <= 8
    assert set(two["placement_memory"]) == {"sram", "dram"}
    _, out, _ = run(capfd, "free.csv", "--memories", "sram:8,dram")
    assert "unbounded" in out


def test_a_trace_a_graph_and_a_packed_graph(capfd: pytest.CaptureFixture[str]) -> None:
    storages = tuple(TraceStorage(64 * n, Category.ACTIVATIONS, 0, (n,), "f") for n in (1, 2))
    trace = Trace(
        "measured", (TraceOp("aten.mm.default", 0, "forward", "net.0", "/x/net.py:3"),), storages,
        np.array([0, 1, 0, 1]), np.array([64, 128, -64, -128]), np.zeros(4, np.int64),
    )  # fmt: skip
    trace.save("t.npz")
    data = answer(capfd, "t.npz")
    assert data["best"]["peak"] == 192
    assert data["at"]["module"] == "net.0"
    assert data["alive"][0]["label"] == "net.0 mm"
    graph = Graph((Op("a", (), (0,)), Op("b", (0,), (1,), reuse=0)), (Storage(64), Storage(64, output=True)))
    Path("g.json").write_text(graph.dumps())
    Path("g.json.gz").write_bytes(gzip.compress(graph.dumps().encode()))
    assert answer(capfd, "g.json")["best"]["peak"] == answer(capfd, "g.json.gz")["best"]["peak"] == 64


WRONG = [
    (["none.csv"], "there is no such file"),
    (["model.onnx"], "there is no such file"),
    (["."], "there is no such file"),
    (["notes.txt"], "nothing is known of such a file"),
    (["bad.json"], "it is no JSON"),
    (["other.json"], "neither a graph nor a plan of memfit"),
    (["cut.json.gz"], "it is no JSON"),
    (["bad.npz"], "not a memfit trace"),
    (["broken.csv"], "broken.csv line 3: it has 2 fields"),
    (["pins.csv"], "overlap"),
    (["free.csv", "--strategies", "nonsense"], "'nonsense'"),
    (["free.csv", "--strategies", " , "], "it names no strategy"),
    (["free.csv", "--capacity", "-4"], "not a size: '-4'"),
    (["free.csv", "--memories", "a:1,a:2"], "'a' comes twice"),
    (["free.csv", "--memories", ":4"], "one has no name"),
    (["free.csv", "--memories", "a:x"], "not a size: 'x'"),
    (["free.csv", "--memories", "a:1", "--capacity", "4"], "--capacity is of one memory"),
    (["named.csv", "--memories", "dram"], "must lie in memory 'sram', which is not among dram"),
    (["two.csv", "--capacity", "4"], "one capacity for several memories; write --memories sram:SIZE,dram:SIZE"),
    (["free.csv", "--out", "plan.txt"], "neither a .json plan nor a .csv table"),
    (["free.csv", "--out", "no/plan.json"], "there is no folder no"),
    (["free.csv", "--set", "batch=2"], "a file takes no settings"),
    (["free.csv", "--time-limit", "0"], "--time-limit"),
    (["free.csv", "--alignment", "0"], "--alignment"),
    (["pinned.csv", "--alignment", "64"], "its pin 4 is no multiple of 64"),
    (["nowhere.py:f"], "there is no file nowhere.py"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_use_is_one_message_and_2(capfd: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    Path("notes.txt").write_text("x")
    Path("bad.json").write_text("{")
    Path("other.json").write_text('{"ops": [{"name": 3}], "a": 1}')
    Path("cut.json.gz").write_bytes(gzip.compress(b"{}" * 999)[:20])
    Path("bad.npz").write_bytes(b"PK\x03\x04")
    Path("broken.csv").write_text("id,lower,upper,size\na,0,1,2\nb,0")
    Path("pins.csv").write_text("id,lower,upper,size,offset\na,0,2,8,0\nb,1,3,8,4\n")
    Path("pinned.csv").write_text("id,lower,upper,size,offset\na,0,2,8,4\n")
    Path("named.csv").write_text("id,lower,upper,size,memory\na,0,2,8,sram\n")
    Path("two.csv").write_text("id,lower,upper,size,memory\na,0,2,8,sram\nb,0,2,8,dram\n")
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("memfit: ")
    assert err.count("\n") == 1
    assert text in err
    assert "Traceback" not in err
    assert text in json.loads(run(capfd, *arguments, "--json")[1])["error"]["message"]


@pytest.mark.parametrize("change", [("reads", [99]), ("writes", [-3]), ("reuse", 7)])
def test_a_graph_that_names_what_is_not_there_is_refused(
    capfd: pytest.CaptureFixture[str], change: tuple[str, Any]
) -> None:
    data = Graph((Op("a", (), (0,)),), (Storage(64),)).to_json()
    data["ops"][0][change[0]] = change[1]
    Path("g.json").write_text(json.dumps(data))
    code, _, err = run(capfd, "g.json")
    assert code == 2
    assert "there are 1" in err


def test_an_undecided_capacity_is_2_and_says_so(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from memfit.api import planning
    from memfit.planners.portfolio import plan_problem

    def undecided(*arguments: Any, **options: Any) -> Any:
        return replace(plan_problem(*arguments, **options), fits=None, infeasible=())

    monkeypatch.setattr(planning, "plan_problem", undecided)
    data = answer(capfd, "free.csv", "--capacity", "11", code=2)
    assert (data["fits"], data["infeasible"], data["error"]["kind"]) == (None, [], "UndecidedError")
    out = run(capfd, "free.csv", "--capacity", "11")[1]
    assert "No placement within 11 bytes was found, and none was proved impossible" in out
