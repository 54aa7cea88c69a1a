"""How a plan is drawn: the terminal, the scene of the pictures, the page, the PNG."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_plans import MIB, made_up_plan, made_up_problem, many_buffers, two_memories
from rich.console import Console

from memfit.errors import MissingFrameworkError
from memfit.planners.load import Load, load_of
from memfit.planners.problem import Placement
from memfit.report import plan_picture as picture
from memfit.report.html import MAX_BYTES
from memfit.report.plan_page import plan_page
from memfit.report.plan_scene import _merged, scene_of, thinned
from memfit.report.plan_summary import PlanReport
from memfit.report.terminal_plan import draw_plan

GOLDEN = Path(__file__).parent.parent / "golden" / "report"


def drawn(report: PlanReport, *written: str, width: int = 80) -> str:
    out = io.StringIO()
    draw_plan(Console(file=out, width=width, color_system=None, legacy_windows=False), report, written)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def optimal() -> PlanReport:
    plan = made_up_plan()
    return replace(
        plan, placements=tuple(replace(p, bound=plan.best.peak) for p in plan.placements), bound=plan.best.peak
    )


def unkept() -> PlanReport:
    return made_up_plan(capacity=13 * MIB, fits=False, infeasible=("w0", "act1", "act2"), notes=("a note",))


@pytest.mark.parametrize("name", ["plan", "plan_unkept", "plan_memories"])
def test_the_terminal_summary_is_the_golden_one(name: str) -> None:
    report = {"plan": optimal, "plan_unkept": unkept, "plan_memories": two_memories}[name]()
    found = drawn(report, "plan.json")
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")
    assert all(len(line) <= 80 for line in found.splitlines())


def test_an_undecided_capacity_says_what_is_known() -> None:
    text = drawn(made_up_plan(capacity=13 * MIB, fits=None))
    assert "No placement within 13631488 bytes was found, and none was proved impossible" in text
    assert "13 MiB: not found" in text


def test_names_are_never_markup() -> None:
    assert "[red]x[/red]" in drawn(made_up_plan(target="[red]x[/red]"))


def covered_cells(scene: Any, panel: Any, span: int, top: int) -> np.ndarray[Any, Any]:
    """Which cells of an 80 x 40 grid the drawn rectangles touch."""
    cells = np.zeros((40, 80), dtype=bool)
    rows = [*zip(panel.left, panel.right, panel.low, panel.high, strict=True), *panel.merged.tolist()]
    for left, right, low, high in rows:
        x = slice(int((left - scene.begin) * 80 / span), max(int(np.ceil((right - scene.begin) * 80 / span)), 1))
        cells[int(low * 40 / top) : int(np.ceil(high * 40 / top)), x] = True
    return cells


def test_what_is_merged_covers_the_same_picture() -> None:
    """Drawn one by one and merged to 300, every coarse cell that is used is used, and empty ones stay empty."""
    report = many_buffers(3000)
    whole, merged = scene_of(report, shown=10_000), scene_of(report, shown=300)
    assert len(whole.panels[0].left) == 3000
    assert len(whole.panels[0].merged) == 0
    panel = merged.panels[0]
    assert len(panel.left) == 300
    assert panel.merged_count == 2700
    span, top = whole.end - whole.begin, report.best.peak
    before, after = (covered_cells(s, s.panels[0], span, top) for s in (whole, merged))
    assert not (before & ~after).any()
    assert (after & ~before).sum() <= 0.05 * before.size
    area = report.problem.size * (report.problem.upper - report.problem.lower)
    assert set(panel.buffer.tolist()) >= set(np.argsort(-area)[:100].tolist())


def test_merged_runs_do_not_overlap() -> None:
    draw = np.random.default_rng(1)
    left, low = draw.integers(0, 90, 200), draw.integers(0, 900, 200)
    runs = _merged(left, left + draw.integers(1, 10, 200), low, low + draw.integers(1, 90, 200), 100, 1000, (100, 50))
    grid = np.zeros((1000, 100), dtype=int)
    for a, b, c, d in runs.tolist():
        grid[c:d, a:b] += 1
    assert grid.max() == 1


def test_a_long_load_keeps_its_peak_and_its_ends() -> None:
    draw = np.random.default_rng(3)
    load = Load(np.arange(500_000), draw.integers(0, 10**9, 500_000))
    thin = thinned(load, 500)
    assert thin.peak == load.peak
    assert thin.peak_instant == load.peak_instant
    assert len(thin.times) <= 1003
    assert (thin.times[0], thin.times[-1]) == (0, 499_999)
    assert (np.diff(thin.times) > 0).all()
    assert thinned(Load(np.array([0, 5]), np.array([7, 0]))).times.tolist() == [0, 5]


def test_gaps_are_several_rectangles_of_one_buffer() -> None:
    panel = scene_of(made_up_plan()).panels[0]
    rows = [i for i, b in enumerate(panel.buffer.tolist()) if b == 1]
    assert [(panel.left[i], panel.right[i], panel.high[i] - panel.low[i]) for i in rows] == [
        (1, 3, 4 * MIB),
        (4, 6, 2 * MIB),
    ]


def test_colours_are_categories_where_they_are_known() -> None:
    by_size = scene_of(made_up_plan())
    assert "size" in by_size.coloured_by
    problem = made_up_problem(meta={"category": ("gradients", "activations", "activations", "temporaries")})
    scene = scene_of(made_up_plan(problem))
    words = [scene.keys[k].word for k in scene.panels[0].key.tolist()]
    assert set(words) == {"gradient", "activation", "temporary"}


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    return dict(json.loads(match.group(1)))


@pytest.fixture(scope="module")
def large_page() -> str:
    return plan_page(many_buffers(60_000))


def test_sixty_thousand_buffers_stay_under_5_megabytes(large_page: str) -> None:
    assert len(large_page.encode()) <= MAX_BYTES
    panel = data_of(large_page)["panels"][0]
    assert len(panel["left"]) == 24_000
    assert panel["merged_count"] == 36_000


def test_long_names_make_the_page_draw_fewer() -> None:
    report = many_buffers(30_000)
    labels = tuple("漢" * 100 + str(i) for i in range(30_000))
    page = plan_page(replace(report, problem=replace(report.problem, labels=labels)))
    assert len(page.encode()) <= MAX_BYTES
    assert len(data_of(page)["panels"][0]["left"]) < 24_000


def test_nothing_is_fetched(large_page: str) -> None:
    frame = large_page.replace(re.search(r'id="data">(.*?)</script>', large_page, re.DOTALL).group(1), "")  # type: ignore[union-attr]
    assert not re.search(r"(src|href)\s*=", frame.split("<script>", 1)[0])
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|@import|url\(", frame)
    assert "default-src 'none'" in frame


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<!--<script>", "%%data%%"])
def test_a_users_names_stay_text(name: str) -> None:
    problem = made_up_problem(ids=(name, "b", "c", "d"), labels=(name, "", "", ""))
    page = plan_page(made_up_plan(problem, target=name, notes=(name,)))
    assert page.count("<script") == page.count("</script>") == 3
    assert name in data_of(page)["names"]


def png_size(data: bytes) -> tuple[int, int]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])  # type: ignore[return-value]


def test_the_picture_is_a_png() -> None:
    pytest.importorskip("matplotlib")
    one = png_size(picture.plan_picture(made_up_plan(target="$x_{")))
    two = png_size(picture.plan_picture(two_memories()))
    assert one[0] == two[0] > 1000
    assert two[1] > one[1] > 700
    assert len(picture.plan_picture(many_buffers(5000))) < 2_000_000
    empty = made_up_problem(ids=(), lower=np.zeros(0, int), upper=np.zeros(0, int), size=np.zeros(0, int), labels=(), pieces={},
                            alignment=np.ones(0, int), offset=np.zeros(0, int), memory=np.zeros(0, int))  # fmt: skip
    nothing = Placement("size/best", np.zeros(0, np.int64), np.zeros(0, np.int64), 0, 0)
    nil = {"placements": (nothing,), "load": load_of(empty), "memory_peaks": (0,), "alive": (), "bound": 0}
    report = replace(made_up_plan(), problem=empty, **nil)
    assert png_size(picture.plan_picture(report))[0] > 1000
    assert len(plan_page(report)) > 1000
    assert drawn(report).startswith("Peak 0 B (0 bytes)")


def test_without_matplotlib_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingFrameworkError, match=r"pip install 'memfit\[picture\]'"):
        picture.plan_picture(made_up_plan())
    assert "matplotlib.pyplot" not in sys.modules
