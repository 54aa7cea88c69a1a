"""The page: one file, under 5 MB, nothing fetched, nothing of a user's names read as markup."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from made_up_reports import long_timeline, made_up_alive, made_up_fit, made_up_memory, made_up_profile

from memfit.report.html import MAX_BYTES, fit_page, memory_page
from memfit.report.summary import AliveTensor, LeverUse


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    return dict(json.loads(match.group(1)))


@pytest.fixture(scope="module")
def long_page() -> tuple[str, int, int]:
    measured, projected = long_timeline(1_000_000), long_timeline(1_000_000, seed=1)
    page = memory_page(made_up_profile(timeline=measured, projected=projected, alive=made_up_alive() * 400))
    return page, measured.peak, projected.peak


def test_a_million_events_stay_under_5_megabytes_with_their_peaks(long_page: tuple[str, int, int]) -> None:
    page, *peaks = long_page
    assert len(page.encode()) <= MAX_BYTES == 5_000_000
    for drawn, peak in zip(data_of(page)["chart"]["curves"], peaks, strict=True):
        totals = [sum(column) for column in zip(*drawn["bytes"].values(), strict=True)]
        assert max(totals) == drawn["peak"] == peak
        assert drawn["events"] == 1_000_000
        assert drawn["shown"] > 1000


def test_names_without_end_stay_under_5_megabytes() -> None:
    alive = tuple(AliveTensor(i, "activations", (1,), "", "ж<" * 5000, "", "ж" * 5000, "") for i in range(5000))
    levers = tuple(LeverUse(f"lever {i}", "bit-exact", i, 0.0, "ж" * 9000) for i in range(5000))
    notes = ("ж" * 90_000,) * 900
    page = fit_page(made_up_fit(memory=made_up_memory(alive=alive, notes=notes), levers=levers, notes=notes))
    assert len(page.encode()) <= MAX_BYTES


def test_nothing_is_fetched(long_page: tuple[str, int, int]) -> None:
    page = long_page[0]
    frame = page.replace(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1), "")  # type: ignore[union-attr]
    assert not re.search(r"(src|href)\s*=", frame.split("<script>", 1)[0])
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|@import|url\(", frame)
    assert "default-src 'none'" in frame


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<!--<script>", "%%data%%", "a & b < c"])
def test_a_users_names_stay_text(name: str) -> None:
    alive = (AliveTensor(4, "parameters", (1,), "f", name, "", "", ""),)
    page = memory_page(made_up_memory(target=name, alive=alive, notes=(name,)))
    assert page.count("<script") == 3
    assert page.count("</script>") == 3
    assert data_of(page)["alive"][0]["name"] == name
    assert data_of(page)["notes"] == [name]


def test_the_profile_page_holds_both_runs_by_category() -> None:
    data = data_of(memory_page(made_up_profile()))
    assert [drawn["kind"] for drawn in data["chart"]["curves"]] == ["measured", "projected"]
    assert {"parameters", "activations", "gradients", "optimizer_state"} <= set(data["chart"]["curves"][0]["bytes"])
    assert [phase[:2] for phase in data["chart"]["phases"]][:3] == [[-1, "build"], [0, "forward"], [0, "backward"]]
    assert {row["name"]: row["projected"] for row in data["compare"]["rows"]}["peak live"] == 1642600000
    assert data["compare"]["divergence"]["module"] == "features.0"
    assert {"name": "kept from step to step", "bytes": 4096, "bad": True} in data["facts"]


def test_the_fit_page_holds_both_sides_every_lever_and_the_checks() -> None:
    report = made_up_fit()
    fit = data_of(fit_page(report))["fit"]
    for side, figures in (("baseline", report.baseline), ("fitted", report.fitted)):
        assert fit[side]["measured_peak"] == figures.measured_peak
        assert max(fit[side]["line"]["bytes"]) == max(nbytes for _, nbytes in figures.timeline)
    assert [(lever["name"], lever["saved"], lever["cost_seconds"]) for lever in fit["levers"]] == [
        (lever.name, lever.saved, lever.cost_seconds) for lever in report.levers
    ]
    assert [check["mark"] for check in fit["verified"]] == ["yes"] * 5
    assert "recipe='gpt2.recipe.json'" in fit["use"][0]


def test_empty_states_have_a_page() -> None:
    assert data_of(memory_page(made_up_memory(timeline=None, alive=(), categories={})))["chart"] is None
    data = data_of(fit_page(made_up_fit(memory=None, levers=(), verified={}, recipe=None)))
    assert "chart" not in data
    assert data["fit"]["use"] == []
