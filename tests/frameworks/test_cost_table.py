"""The file of op costs, when several processes measure at once."""

from pathlib import Path
from typing import Any

import pytest

from memfit.frameworks.torch import measure
from memfit.frameworks.torch.measure import CostTable


def row(seconds: float) -> dict[str, Any]:
    return {"seconds": seconds, "workspace": 0, "outputs": []}


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMFIT_CACHE", str(tmp_path))
    monkeypatch.setattr(measure, "_measured_here", {})


def another_process(monkeypatch: pytest.MonkeyPatch) -> CostTable:
    monkeypatch.setattr(measure, "_measured_here", {})
    return CostTable()


@pytest.mark.usefixtures("fresh")
def test_rows_of_others_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = CostTable(), another_process(monkeypatch)
    mine._row("mine", lambda: row(1.0))
    other._row("other", lambda: row(2.0))
    mine.save()
    other.save()
    assert set(another_process(monkeypatch).rows) == {"mine", "other"}


@pytest.mark.usefixtures("fresh")
def test_a_process_stays_with_what_it_used_first() -> None:
    first, second = CostTable(), CostTable()
    assert first._row("op", lambda: row(1.0))["seconds"] == 1.0
    first.save()
    assert second._row("op", lambda: row(9.0))["seconds"] == 1.0
    first.path.write_text('{"op": {"seconds": 5.0, "workspace": 0, "outputs": []}}')  # what another process measured
    assert CostTable()._row("op", lambda: row(9.0))["seconds"] == 1.0


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("text", ["[]", "{", ""])
def test_a_broken_file_is_no_error(text: str) -> None:
    table = CostTable()
    table.path.parent.mkdir(parents=True, exist_ok=True)
    table.path.write_text(text)
    again = CostTable()
    assert again._row("op", lambda: row(1.0))["seconds"] == 1.0
    again.save()
    assert CostTable().rows == {"op": row(1.0)}
