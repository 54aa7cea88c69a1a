"""`memfit optimize`, ONNX: budgets kept in written bytes, outputs compared by running, one message for bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

from compressible_models import save_onnx

from memfit.api.compressing import compress
from memfit.cli.main import main
from memfit.errors import BudgetError, TargetError


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    np.savez("inputs.npz", **save_onnx(tmp_path / "m.onnx"))
    return "m.onnx"


def test_a_budget_is_kept_and_outputs_are_measured(model: str) -> None:
    import onnxruntime

    report = compress(model, budget=24_000, calibration="inputs.npz", seconds=20, repeats=1)
    assert Path(report.output).stat().st_size == report.after.file_bytes <= 24_000
    assert report.before.file_bytes > 3 * report.after.file_bytes
    inputs = dict(np.load("inputs.npz"))
    old, new = (onnxruntime.InferenceSession(path).run(None, inputs)[0] for path in (model, report.output))
    assert report.relative_error == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-3)
    assert 0 < report.relative_error < 0.3
    assert report.after.peak is not None
    smaller = onnxruntime.InferenceSession(report.output).run(None, {"x": inputs["x"][:3]})[0]
    assert smaller.shape == (3, 32)


@pytest.mark.parametrize(("form", "ratio"), [("int8", 3.0), ("int4", 4.5)])
def test_one_format_for_all(model: str, form: str, ratio: float) -> None:
    report = compress(model, quantize=form, calibration="inputs.npz", repeats=1)
    assert report.before.file_bytes / report.after.file_bytes > ratio
    assert report.projected_bytes == pytest.approx(report.after.file_bytes, rel=0.1)
    assert {row.format for row in report.layers} == {form}


def test_a_budget_below_the_smallest_names_it(model: str) -> None:
    with pytest.raises(BudgetError) as caught:
        compress(model, budget=5000, calibration="inputs.npz", seconds=1)
    assert caught.value.needed > 5000


def test_bad_input_is_one_message(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.onnx").write_bytes(Path(model).read_bytes()[:500])
    Path("broken.npz").write_bytes(b"no archive")
    np.savez("other.npz", z=np.zeros(3))
    np.savez("shape.npz", x=np.zeros((1, 63), np.float32))
    for arguments, text in (
        ([model, "--quantize", "int4"], "calibration"),
        (["broken.onnx", "--quantize", "int4", "--calibration", "inputs.npz"], "no valid ONNX"),
        (["none.onnx", "--quantize", "int4", "--calibration", "inputs.npz"], "no such file"),
        ([model, "--quantize", "int4", "--calibration", "broken.npz"], "cannot be read"),
        ([model, "--quantize", "int4", "--calibration", "other.npz"], "lacks the inputs"),
        ([model, "--quantize", "int4", "--calibration", "shape.npz"], "does not run on it"),
        ([model, "--quantize", "int3", "--calibration", "inputs.npz"], "no such format here"),
        ([model, "--sparsify", "2:4", "--calibration", "inputs.npz"], "no such format here"),
    ):
        assert main(["optimize", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert text in said, (arguments, said)
        assert "Traceback" not in said


def test_a_library_that_is_missing_is_named(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    import memfit.frameworks.onnx

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "memfit.frameworks.onnx.quantize", raising=False)
    monkeypatch.delattr(memfit.frameworks.onnx, "quantize", raising=False)
    assert main(["optimize", model, "--quantize", "int4", "--calibration", "inputs.npz"]) == 2
    assert "pip install 'memfit[onnx]'" in capsys.readouterr().err


def test_a_model_without_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx
    from onnx import TensorProto, helper

    monkeypatch.chdir(tmp_path)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "r.onnx")
    with pytest.raises(TargetError, match="no node with a constant weight"):
        compress("r.onnx", quantize="int4", calibration="none.npz")
