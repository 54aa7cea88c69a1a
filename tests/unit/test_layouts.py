"""`memfit layouts`: bytes add up in every layout, bookkeeping against brute force, and what a user meets."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memfit
from memfit.allocators import layouts
from memfit.api.replay_sources import requests_of_problem
from memfit.cli.main import main
from memfit.errors import ProblemError, TraceError
from memfit.ir.requests import Action, Requests
from memfit.planners.problem import simple_problem

buffers = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(1, 9000)), min_size=1, max_size=24
)  # fmt: skip


def requests_of(rows: list[tuple[int, int, int]]) -> Requests:
    lower, length, size = (np.array(column) for column in zip(*rows, strict=True))
    return requests_of_problem(simple_problem(lower, lower + length, size))


@settings(max_examples=40, deadline=None)
@given(buffers)
def test_bytes_add_up_and_regions_hold_what_is_live(rows: list[tuple[int, int, int]]) -> None:
    found = layouts.compare_layouts(requests_of(rows), (64, 4096))
    instants = range(max(low + length for low, length, _ in rows))
    peak = max(sum(size for low, length, size in rows if low <= t < low + length) for t in instants)
    assert found.peak_live == peak
    for layout in found.layouts:
        assert layout.live + layout.inside + layout.between == layout.reserved
        assert min(layout.inside, layout.between, layout.metadata) >= 0
        assert layout.reserved >= peak
        assert sum(region.used for region in layout.regions) == peak
        held = sorted((region.low, region.high) for region in layout.regions)
        assert all(a[1] <= b[0] for a, b in pairwise(held))
        if layout.name != "caching":
            assert held[-1][1] <= layout.reserved
    by_name = {layout.name: layout for layout in found.layouts}
    assert by_name["planned"].reserved >= found.bound
    assert by_name["planned"].reserved <= by_name["segmented"].reserved


@settings(max_examples=60, deadline=None)
@given(buffers)
def test_pages_and_segments_against_brute_force(rows: list[tuple[int, int, int]]) -> None:
    requests, page = requests_of(rows), 512
    found = {layout.name: layout for layout in layouts.compare_layouts(requests, (page,)).layouts}
    taken: dict[int, set[int]] = {}
    spans: dict[int, tuple[int, int]] = {}
    frames = segments = holes = 0
    fit = layouts.FitPolicy("first", alignment=64, granule=64).replay(requests, series=True)
    assert fit.series is not None
    for event, (action, block, nbytes) in enumerate(zip(requests.action, requests.block, requests.nbytes, strict=True)):
        if action == Action.ALLOCATE:
            used = set().union(*taken.values()) if taken else set()
            free = (frame for frame in range(10**6) if frame not in used)
            taken[block] = {next(free) for _ in range(-(-int(nbytes) // page))}
            at = int(fit.series.address[event])
            spans[block] = (at, at + -(-int(nbytes) // 64) * 64)
        else:
            del taken[block], spans[block]
        frames = max([frames, *(max(pages) + 1 for pages in taken.values())])
        edges = sorted(spans.values())
        segments = max(segments, len(edges))
        below = [0, *(end for _, end in edges)]
        holes = max(holes, sum(start > end for (start, _), end in zip(edges, below, strict=False)))
    assert found["paged-512"].reserved == frames * page
    assert found["paged-512"].metadata == 8 * frames + -(-frames // 8)
    assert found["segmented"].metadata == 24 * segments + 16 * holes


def test_frames_are_taken_lowest_first_and_joined() -> None:
    frames = layouts.PageFrames()
    a, b = frames.take(3), frames.take(2)
    frames.give(a)
    assert frames.take(4) == [(0, 3), (5, 6)]
    frames.give(b)
    assert (frames.top, frames.used, frames.free) == (6, 4, [(3, 5)])


@pytest.mark.parametrize("page", [0, 48, 63, 3000])
def test_a_page_must_be_one(page: int) -> None:
    with pytest.raises(ProblemError, match="power of two from 64 bytes up"):
        layouts.compare_layouts(requests_of([(0, 1, 10)]), (page,))


def test_nothing_to_lay_out() -> None:
    empty = Requests(*(np.empty(0, kind) for kind in (np.uint8, np.int64, np.int64, np.int32, np.int32, np.int64)))
    with pytest.raises((ProblemError, TraceError)):
        layouts.compare_layouts(empty)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "lifetimes.csv"
    path.write_text("id,lower,upper,size\n<b>a</b>,0,3,100000\nb,1,4,3000000\nc,2,9,70\nd,4,9,5000000\n")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["layouts", *arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_json_has_the_promised_keys(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, str(table), "--json", "--page", "4KiB")
    data: dict[str, Any] = json.loads(out)
    assert code == 0
    assert data["peak_live"] == 5000070
    assert [row["name"] for row in data["layouts"]] == ["paged-4096", "segmented", "planned", "caching"]
    for row in data["layouts"]:
        assert row["live"] + row["internal"] + row["external"] == row["peak_reserved"]
        assert {"metadata", "fragmentation", "title"} <= row.keys()
    assert memfit.compare_layouts(table, pages=["4KiB"]).to_json()["layouts"] == data["layouts"]


def test_the_terminal_fits_80_columns_and_the_page_reads_no_name_as_markup(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = tmp_path / "page.html"
    code, out, _ = run(capsys, str(table), "--html", str(page))
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "planned" in out
    text = page.read_text()
    assert "<b>a</b>" not in text
    assert "<script" not in text
    assert text.count("<rect") > 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.csv"], "there is no such file"),
        (["TABLE", "--page", "3000"], "power of two"),
        (["TABLE", "--page", "a"], "not a size"),
        (["TABLE", "--page", ","], "names no size"),
        (["TABLE", "--html", "/nowhere/page.html"], "cannot write"),
    ],
)
def test_bad_input_is_one_message(
    table: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, out, err = run(capsys, *[str(table) if a == "TABLE" else a for a in arguments])
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not out
