"""Scalers against scikit-learn's, token windows against slices, the bench and the tuner on small data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memfit.cli.main import main
from memfit.data import MinMaxScaler, RobustScaler, StandardScaler, TokenLoader, convert
from memfit.errors import DataError


def matrix(dtype: str, holes: bool) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(1)
    values = (rng.standard_normal((5000, 11)) * np.linspace(0.1, 50, 11) + np.linspace(-200, 300, 11)).astype(dtype)
    values[:, 3] = 7
    if holes:
        values[rng.random(values.shape) < 0.03] = np.nan
    return values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("name", ["StandardScaler", "MinMaxScaler", "RobustScaler"])
def test_a_scaler_equals_scikit_learns(name: str, dtype: str, holes: bool) -> None:
    theirs = getattr(pytest.importorskip("sklearn.preprocessing"), name)()
    ours = {"StandardScaler": StandardScaler, "MinMaxScaler": MinMaxScaler, "RobustScaler": RobustScaler}[name]()
    values = matrix(dtype, holes)
    if name == "RobustScaler" and dtype == "float64":
        with pytest.raises(DataError, match="float32 or narrower"):
            ours.fit(values)
        return
    wide = values.astype(np.float64)
    theirs.fit(wide)
    ours.fit(values)
    tolerance = {"rtol": 1e-6} if dtype == "float32" else {"rtol": 1e-11}
    for field in ("mean_", "var_", "scale_", "data_min_", "data_max_", "min_", "center_"):
        if hasattr(theirs, field) and getattr(theirs, field) is not None:
            found, wanted = getattr(ours, field), getattr(theirs, field)
            apart = np.arange(11) != 3 if field == "var_" else slice(None)
            np.testing.assert_allclose(found[apart], wanted[apart], **tolerance)
    out = np.empty_like(values)
    assert ours.transform(values, out=out) is out
    np.testing.assert_allclose(out, theirs.transform(wide), atol=2e-3 if dtype == "float32" else 1e-9)
    np.testing.assert_allclose(ours.inverse_transform(out), values, rtol=1e-4, atol=1e-4)


def test_partial_fits_add_up() -> None:
    values = matrix("float32", True)
    whole, parts = StandardScaler().fit(values), StandardScaler()
    for part in np.array_split(values, 7):
        parts.partial_fit(part)
    np.testing.assert_allclose(parts.mean_, whole.mean_, rtol=1e-6)
    np.testing.assert_allclose(parts.scale_, whole.scale_, rtol=1e-6)
    with pytest.raises(DataError, match="fitted to 11 features"):
        parts.partial_fit(values[:, :5])
    with pytest.raises(DataError, match="not fitted"):
        StandardScaler().transform(values)


def test_windows_are_slices_each_once_and_resume(tmp_path: Path) -> None:
    tokens = np.arange(10_000, dtype=np.uint16)
    tokens.tofile(tmp_path / "t.bin")
    data = convert(tmp_path / "t.bin", tmp_path / "set")
    loader = TokenLoader(data, 16, 32, last="keep", seed=3)
    starts: list[int] = []
    for x, y in loader:
        assert x.dtype == np.int64
        assert x.base is not None
        for row, after in zip(x, y, strict=True):
            assert row.tolist() == list(range(row[0], row[0] + 16))
            assert (after == row + 1).all()
            starts.append(int(row[0]))
    assert len(set(starts)) == len(starts) == loader.windows
    assert np.unique(np.diff(np.sort(starts))).tolist() == [16]
    resumed, first = TokenLoader(data, 16, 10, last="keep"), TokenLoader(data, 16, 32, last="keep", seed=3)
    running = iter(first)
    seen = [int(x) for _ in range(4) for x in next(running)[0][:, 0]]
    resumed.load_state_dict(first.state_dict())
    seen += [int(row) for x, _ in resumed for row in x[:, 0]]
    assert seen == starts
    with pytest.raises(DataError, match="fewer than two windows"):
        TokenLoader(data, 9000, 1)


LOADER = """
import numpy as np
class Data:
    def __len__(self): return 20
    def __iter__(self):
        for i in range(20):
            yield np.ones(1 << 20, np.uint8).astype(np.float32)
def make(): return Data()
"""


def test_bench_and_tune_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    from memfit.data.tuning import untune

    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", image=np.zeros((64, 3, 32, 32), np.uint8), label=np.arange(64))
    convert("a.npz", "set")
    monkeypatch.setattr("memfit.data.benching._COPIED", 1 << 20)
    for more in ([], ["--memory-budget", "200MiB", "--as", "bfloat16"], ["--cold", "--no-shuffle"]):
        assert main(["data", "bench", "set", "--json", *more]) == 0
        answer = json.loads(capfd.readouterr().out)
        assert {"samples_per_second", "bytes_per_second", "limit_bytes_per_second", "peak_resident"} <= set(answer)
    assert main(["data", "bench", "set"]) == 0
    assert "bound by" in capfd.readouterr().out
    assert main(["data", "bench", "set", "--memory-budget", "1KiB"]) in (0, 2)
    capfd.readouterr()
    Path("loader.py").write_text(LOADER)
    try:
        assert main(["data", "tune", "loader.py:make", "--json"]) == 0
    finally:
        untune()
    answer = json.loads(capfd.readouterr().out)
    assert answer["factor"] > 0
    assert answer["cap"] == 1 << 30
    assert main(["data", "tune", "none.py:make"]) == 2
