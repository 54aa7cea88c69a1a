"""Devices as installed frameworks see them; one that breaks is a row, one that is absent is none."""

from __future__ import annotations

import pytest

from memfit.frameworks import devices


def test_the_cpu_is_seen_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_ASK", {"torch": devices._ASK["torch"], "no_such_framework": "rows = []"})
    rows = devices.framework_devices(3, 10)
    assert {"framework": "torch", "name": "cpu", "kind": "cpu", "memory": 10, "free": 3, "used": 7} in rows
    assert {row["framework"] for row in rows} == {"torch"}


@pytest.mark.parametrize(
    ("code", "text"), [("raise RuntimeError('no driver')", "no driver"), ("rows = ''; import os; os._exit(0)", "else")]
)
def test_a_framework_that_breaks_is_a_row(code: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_ASK", {"json": code})
    (row,) = devices.framework_devices(1, 2)
    assert text in row["error"]
