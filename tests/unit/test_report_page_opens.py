"""The pages draw themselves in a real browser without an error; skipped where there is no Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_up_reports import long_timeline, made_up_fit, made_up_memory, made_up_profile

from memfit.report.html import fit_page, memory_page

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page with")

PAGES = {
    "predict": (lambda: memory_page(made_up_memory()), ["Live bytes, projected", "At the peak, by category"]),
    "profile": (lambda: memory_page(made_up_profile()), ["Live bytes, measured and projected"]),
    "fit": (lambda: fit_page(made_up_fit()), ["Live bytes, baseline against fitted", "Use it"]),
    "empty": (lambda: memory_page(made_up_memory(timeline=None, alive=(), categories={})), ["Live bytes"]),
    "fit_empty": (lambda: fit_page(made_up_fit(memory=None, levers=(), verified={}, recipe=None)), ["Not verified"]),
    "long": (lambda: memory_page(made_up_memory(timeline=long_timeline(100_000))), ["Live bytes, projected"]),
}  # fmt: skip
CHARTS = {"predict": 1, "profile": 1, "fit": 2, "empty": 0, "fit_empty": 1, "long": 1}
REPORT = "<script>addEventListener('error', (e) => { document.title = 'FAILED ' + e.message; });</script><script type"


@pytest.mark.parametrize("name", PAGES)
def test_the_page_draws_itself(name: str, tmp_path: Path) -> None:
    build, headings = PAGES[name]
    path = tmp_path / "page.html"
    path.write_text(build().replace("<script type", REPORT, 1), encoding="utf-8")
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=2000", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "FAILED" not in re.search(r"<title>(.*?)</title>", done.stdout).group(1)  # type: ignore[union-attr]
    drawn = re.findall(r"<h2>(.*?)</h2>", done.stdout)
    assert [text for text in headings if text not in drawn] == []
    assert done.stdout.count("<canvas") == CHARTS[name]
