"""`memfit paging` from file to figures: what is read, what is refused, what is drawn, and the system's own faults."""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memfit
from memfit.api.paging import simulate_paging
from memfit.cli.main import main
from memfit.errors import TargetError, TraceError
from memfit.ir.graph import Graph, Op, Storage
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage
from memfit.paging.accesses import accesses_of
from memfit.paging.faults import PAGE, faults
from memfit.report.paging_page import paging_page
from memfit.report.paging_summary import on_one_line

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_pages_are_numbered_in_order_of_first_use() -> None:
    found = accesses_of([90, 7, 90, -5])
    assert (found.page.tolist(), found.pages, found.page_bytes) == ([0, 1, 0, 2], 3, 0)


@pytest.mark.parametrize("spread", [1, 7, 10**15])
def test_numbering_keeps_who_is_who(spread: int) -> None:
    ids = np.random.default_rng(spread).integers(-40, 40, 500) * spread
    found = accesses_of(ids)
    names = list(dict.fromkeys(ids.tolist()))
    assert found.pages == len(names)
    assert [names[page] for page in found.page.tolist()] == ids.tolist()


def test_numbering_of_the_farthest_ids() -> None:
    assert accesses_of([2**63 - 1, -(2**63), 2**63 - 1]).page.tolist() == [0, 1, 0]


def test_objects_of_one_size_are_pages() -> None:
    found = accesses_of([3, 4, 3], [100, 100, 100])
    assert (found.page.tolist(), found.pages, found.page_bytes) == ([0, 1, 0], 2, 100)


def test_objects_of_several_sizes_are_runs_of_pages() -> None:
    found = accesses_of([8, 9, 8], [10_000, 1, 10_000])
    assert (found.page.tolist(), found.pages, found.page_bytes) == ([0, 1, 2, 3, 0, 1, 2], 4, 4096)
    assert accesses_of([8, 9], [10_000, 1], page_bytes=10_000).page.tolist() == [0, 1]


def test_long_traces_of_large_objects_get_larger_pages() -> None:
    found = accesses_of([0, 1] * 1000, [1 << 30, 1 << 20] * 1000)
    assert found.page_bytes > 4096
    assert len(found) <= 1_000_000


@pytest.mark.parametrize(
    ("ids", "sizes", "page", "message"),
    [
        ([1, 1], [4, 5], None, "id 1 has 4 bytes and, at access 1, 5"),
        ([1], [0], None, "a size is at least 1"),
        ([1], [4, 4], None, "1 accesses and 2 sizes"),
        ([1], [4], 0, "the smallest is 1 byte"),
        ([1, 2], [2**60, 1], 1, "take a larger page"),
    ],
)
def test_sizes_that_cannot_be(ids: list[int], sizes: list[int], page: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accesses_of(ids, sizes, page)


def test_a_table_with_and_without_a_header(tmp_path: Path) -> None:
    with_header = written(tmp_path, "a.csv", "time,size,id\n0,4KiB,a\n1,4096,b\n2,4096,a\n")
    bare = written(tmp_path, "b.csv", "# accesses\na,4096\n\nb,4096\na,4096\n")
    for path in (with_header, bare):
        report = simulate_paging(path, "4KiB")
        assert (report.accesses, report.pages, report.page_bytes, report.capacity) == (3, 2, 4096, 1)
    assert simulate_paging(written(tmp_path, "c.csv", "a\nb\na\n"), 2).page_bytes == 0


def test_page_numbers_in_text(tmp_path: Path) -> None:
    report = simulate_paging(written(tmp_path, "pages.txt", "0x10 16, 17 # a remark 99\n16\n"), 1)
    assert (report.accesses, report.pages) == (4, 2)


def graph() -> Graph:
    ops = (Op("a", reads=(0,), writes=(1,)), Op("b", reads=(1, 0), writes=(2,)))
    return Graph(ops, (Storage(8, constant=True), Storage(8), Storage(8, output=True)))


def test_a_graph_reads_then_writes(tmp_path: Path) -> None:
    path = written(tmp_path, "g.json", graph().dumps())
    assert simulate_paging(path, 3).accesses == simulate_paging(graph(), 3).accesses == 5
    assert simulate_paging(graph(), "8B", policies=["lru"]).rows[0].misses == 4  # 0 1, 1 0 2


def test_a_trace_is_first_and_last_moments(tmp_path: Path) -> None:
    held = (TraceStorage(64, Category.ACTIVATIONS, 0), TraceStorage(64, Category.ACTIVATIONS, 0))
    trace = Trace(
        "projected", (TraceOp("a"),), held, np.array([0, 1, 0]), np.array([64, 64, -64]), np.zeros(3, np.int64)
    )
    trace.save(tmp_path / "t.npz")
    report = simulate_paging(tmp_path / "t.npz", 2)
    assert (report.accesses, report.pages) == (3, 2)
    assert "first and the last moment" in report.notes[0]


@pytest.mark.parametrize(
    ("name", "text", "arguments", "message"),
    [
        ("a.csv", "", [], "it holds no access"),
        ("a.csv", "id,size\na,1\na,2\n", [], "access 2: 'a' has 2 bytes, and 1 before"),
        ("a.csv", "a,0\n", [], "line 1: '0' is no size"),
        ("a.csv", "a,1\nb\n", [], "line 2: a size in some lines and none in others"),
        ("a.csv", "size,id\n3\n", [], "line 2: there is no id"),
        ("a.txt", "1 2\n3 x\n", [], "line 2: 'x' is no page number"),
        ("a.txt", "99999999999999999999", [], "more than 64 bits"),
        ("a.json", "{", [], "it is no JSON"),
        ("a.json", "{}", [], "neither a graph nor a plan"),
        ("a.npz", "x", [], "not a memfit trace"),
        ("a.txt", "1 2 3", ["--capacity", "64MiB"], "no number of pages"),
        ("a.txt", "1 2 3", ["--capacity", "0"], "smallest is 1 page"),
        ("a.txt", "1 2 3", ["--capacity", "0%"], "no share of its 3 pages"),
        ("a.txt", "1 2 3", ["--capacity", "many"], "not a size"),
        ("a.txt", "1 2 3", ["--page", "0"], "not a size"),
        ("a.txt", "1 2 3", ["--page", "8", "--capacity", "7B"], "holds no page"),
        ("a.txt", "1 2 3", ["--policies", "nru"], "no replacement policy 'nru'"),
        ("a.txt", "1 2 3", ["--policies", ","], "it names no policy"),
        ("a.txt", "1 2 3", ["--html", "/nowhere/at/all.html"], "cannot write"),
    ],
)
def test_bad_input_is_one_message(
    name: str, text: str, arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = main(["paging", str(written(tmp_path, name, text)), *arguments])
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no such file"):
        simulate_paging(tmp_path / "none.csv")
    with pytest.raises(TargetError, match="it is a folder"):
        simulate_paging(tmp_path)
    with pytest.raises(TraceError, match="no access"):
        simulate_paging([])
    binary = tmp_path / "b.txt"
    binary.write_bytes(b"\x89PNG\xff")
    with pytest.raises(TraceError, match="no text of accesses"):
        simulate_paging(binary)


def layers(folder: Path) -> Path:
    return written(folder, "layers.csv", "".join(f"layer{i},16MiB\n" for _ in range(5) for i in range(20)))


def answer(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_the_object_of_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = answer(capfd, "paging", str(layers(tmp_path)), "--capacity", "160MiB", "--policies", "lru,opt", "--curve")
    assert found["capacity"] == {"pages": 10, "bytes": 160 << 20}
    assert (found["accesses"], found["pages"], found["cold_misses"], found["page_bytes"]) == (100, 20, 20, 16 << 20)
    assert [row["name"] for row in found["policies"]] == ["opt", "lru"]
    optimum, recent = found["policies"]
    assert (recent["misses"], recent["evictions"], recent["hit_rate"]) == (100, 90, 0.0)
    assert optimum["misses"] == 100 - round(100 * optimum["hit_rate"]) < 70
    curve = {row["name"]: row for row in found["curves"]}
    assert curve["opt"]["capacity"] == list(range(1, 21))
    assert curve["opt"]["exact"] is True
    assert curve["opt"]["misses"][9] == optimum["misses"]
    assert curve["lru"]["misses"] == [100] * 19 + [20]


def test_without_a_curve_there_is_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = answer(capfd, "paging", str(layers(tmp_path)))
    assert found["curves"] == []
    assert found["capacity"]["pages"] == 10
    assert len(found["policies"]) == 9


def test_the_summary_and_its_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    page, picture = tmp_path / "p.html", tmp_path / "p.png"
    assert main(["paging", str(layers(tmp_path)), "--html", str(page), "--png", str(picture)]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "LRU hits 0.0 %" in " ".join(out.split())
    assert "Miss ratio by capacity" in out
    assert max(map(len, out.splitlines())) <= 80 + len(str(tmp_path))
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count('class="line"') == 18  # nine lines and nine keys


def test_room_for_everything_is_said() -> None:
    report = simulate_paging([1, 2, 3], 3)
    assert "holds every page" in report.notes[-1]
    assert {row.misses for row in report.rows} == {3}


def test_lines_that_lie_on_each_other_are_named() -> None:
    report = simulate_paging(np.tile(np.arange(8), 4), 4, policies=["lru", "fifo", "opt"], curve=True)
    assert on_one_line(report.curves) == "On one line: LRU and FIFO."


def test_names_are_never_markup(tmp_path: Path) -> None:
    path = written(tmp_path, "<b>.csv", "1\n2\n")
    assert "<b>.csv" not in paging_page(simulate_paging(path, 1))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page with")
def test_the_page_opens(tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    page.write_text(paging_page(simulate_paging(layers(tmp_path), 7, curve=True)), encoding="utf-8")
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "Miss ratio at every capacity" in done.stdout
    assert done.stdout.count("<path") == 18


def test_faults_of_fresh_memory_are_counted() -> None:
    pages = 512
    with mmap.mmap(-1, pages * PAGE) as fresh:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            fresh.madvise(mmap.MADV_NOHUGEPAGE)
        before = faults(fresh)
        assert (before.resident_pages, before.mapped_pages) == (0, pages)
        for page in range(0, pages, 2):
            fresh[page * PAGE] = 1
        after = faults(fresh)
        assert after.resident_pages == pages // 2
        assert after.resident_bytes == pages // 2 * PAGE
        assert (after - before).minor >= pages // 2
        assert (after - before).major == 0


def test_faults_take_whatever_has_a_buffer(tmp_path: Path) -> None:
    array = np.ones(5 * PAGE, np.uint8)
    assert faults(array).mapped_pages in (5, 6)
    assert faults(array).resident_pages == faults(array).mapped_pages
    assert faults((array.ctypes.data, array.nbytes)) == faults(array)
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * PAGE))
    mapped = np.memmap(path, np.uint8, "r")
    assert faults(mapped).mapped_pages == 3
    assert faults().mapped_pages == 0
    assert faults(b"").mapped_pages == 0
    assert memfit.paging.faults is faults


def test_faults_of_no_mapping() -> None:
    with pytest.raises(OSError, match="not all mapped"):
        faults((0, PAGE))
    with pytest.raises(TypeError, match="not contiguous"):
        faults(np.ones((8, 8))[:, ::2])
