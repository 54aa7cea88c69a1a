"""The summary of a replay as a user meets it: a golden text, at several widths, names never read as markup."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from memfit.allocators.policy import Stranded
from memfit.report.replay_page import replay_page
from memfit.report.replay_summary import (
    AddressCheck,
    AdviceRow,
    Contender,
    Curve,
    PolicyRow,
    ReplayReport,
    StaticAgainstDynamic,
)
from memfit.report.terminal_replay import draw_replay

GOLDEN = Path(__file__).parent.parent / "golden" / "report" / "replay.txt"
MIB, GIB = 1 << 20, 1 << 30


def row(key: str, reserved: int, smallest: int, calls: int, fits: bool) -> PolicyRow:
    live = 10 * GIB
    curve = Curve(*(np.array(values) for values in ([0, 50], [GIB, live], [GIB, live + MIB], [2 * GIB, reserved])))
    stranded = (Stranded(0, 20 * MIB, 12 * MIB, 8 * MIB, "2 holes, the largest 8.00 MiB: too small for 64.0 MiB"),)
    return PolicyRow(
        key, key, live + MIB, reserved, 1 - live / reserved, MIB / live, 1 - live / reserved, 0.5, calls, smallest, calls + 7,
        30e-9, (live, live + MIB, reserved), curve, stranded, fits, None if fits else 77, calls if fits else None,
    )  # fmt: skip


def made_up_replay() -> ReplayReport:
    torch = Contender("dynamic: torch", 14 * GIB, 0.29, 41e-9)
    plan = Contender("static plan of the whole trace", 10 * GIB, 0.0, 3e-9, 1.0, 10 * GIB)
    words = "Take the static plan where shapes are fixed: 10.0 GiB instead of 14.0 GiB."
    static = StaticAgainstDynamic((torch, plan), 10 * GIB, True, 2706, 4, words)
    return ReplayReport(
        "runs/[bold]step.pickle", "recorded", "cpu", 13755, 7174, 10 * GIB, 64 * MIB,
        (row("first-fit", 11 * GIB, 11 * GIB, 231, True), row("torch", 14 * GIB, 13 * GIB, 205, False)), 12 * GIB,
        (AdviceRow("expandable_segments:True", 10 * GIB, 349, 11 * GIB), AdviceRow("", 13 * GIB, 205, 14 * GIB)),
        AddressCheck(7174, 3, "event 5: recorded at 0x7f0000, replayed at 0x7f0200 (best fit)"), static, 0.25,
        ("several streams: only torch's policies keep a pool for each",),
    )  # fmt: skip


def drawn(report: ReplayReport, width: int = 80) -> str:
    file = io.StringIO()
    draw_replay(Console(file=file, width=width, color_system=None, highlight=False), report, ("replay.html",))
    return file.getvalue()


def test_golden() -> None:
    """Run with UPDATE_GOLDEN=1 to write the text anew, then read the difference."""
    text = drawn(made_up_replay())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 132])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, drawn(made_up_replay(), width).splitlines())) <= width


def test_names_are_text_everywhere() -> None:
    assert "[bold]" in drawn(made_up_replay(), 132)
    page = replay_page(replace(made_up_replay(), target="<b>&", notes=("<i>",)))
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "<i>" not in page.replace("<i></i>", "")


def test_mismatches_are_named_first() -> None:
    assert drawn(made_up_replay()).startswith("3 of 7174 recorded addresses DIFFER from the replay; first at event 5")
