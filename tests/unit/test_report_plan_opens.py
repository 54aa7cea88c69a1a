"""The page of a plan draws itself in a real browser without an error; skipped where there is no Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_up_plans import made_up_plan, many_buffers, two_memories

from memfit.report.plan_page import plan_page

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page with")

PAGES = {
    "plan": (made_up_plan, ["Where every buffer lies", "Strategies, best first"]),
    "memories": (two_memories, ["Memory sram", "Memory dram"]),
    "unkept": (
        lambda: made_up_plan(capacity=99, fits=False, infeasible=("w0",), notes=("a note",)),
        ["These buffers alone cannot fit the capacity", "Notes"],
    ),
    "many": (lambda: many_buffers(60_000), ["Where every buffer lies"]),
}
REPORT = "<script>addEventListener('error', (e) => { document.title = 'FAILED ' + e.message; });</script><script type"


@pytest.mark.parametrize("name", PAGES)
def test_the_page_draws_itself(name: str, tmp_path: Path) -> None:
    build, headings = PAGES[name]
    report = build()
    path = tmp_path / "page.html"
    path.write_text(plan_page(report).replace("<script type", REPORT, 1), encoding="utf-8")
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
    assert done.stdout.count("<canvas") == len(report.problem.memories)
