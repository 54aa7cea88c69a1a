"""`memfit optimize`, torch: budgets kept in written bytes, the written model read back without its weights, errors true."""

from __future__ import annotations

import json
from pathlib import Path

import compressible_models as models
import pytest
import torch
from torch import nn

import memfit
from memfit.api.compressing import compress, load_compressed
from memfit.cli.main import main
from memfit.errors import BudgetError, TargetError, TraceError, WeightFileError
from memfit.fitting.compression import Compression
from memfit.frameworks.torch.compressed_file import tensors_of
from memfit.frameworks.torch.compressible import layers_of
from memfit.frameworks.torch.quantized_int4 import NativeInt4Weight
from memfit.frameworks.torch.quantized_linear import PackedEmbedding, PackedLinear, PackedWeight
from memfit.frameworks.torch.quantized_sparse import SparseWeight
from memfit.ir.step import Step
from memfit.passes.formats import FORMATS, library_bytes
from memfit.passes.quantize import quantize

HERE = str(Path(models.__file__))


def target(name: str) -> str:
    return f"{HERE}:{name}"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_budget_is_kept_and_the_file_is_read_back(tmp_path: Path) -> None:
    report = compress(target("gpt2"), budget=90_000, seconds=20, repeats=0)
    data = report.to_json()
    assert Path(report.output).stat().st_size == data["after"]["file_bytes"] == data["projected_bytes"] <= 90_000
    assert data["before"]["file_bytes"] > 4 * data["after"]["file_bytes"]
    assert data["after"]["constants"] < data["before"]["constants"] / 4
    model, inputs = models.gpt2()
    loaded = memfit.load_compressed(report.output)
    with torch.no_grad():
        old, new = model(**inputs).logits, loaded(**inputs).logits
    assert data["relative_error"] >= float((new - old).norm() / old.norm()) - 1e-6
    assert loaded.lm_head.packed is loaded.transformer.wte.packed
    assert all(tensor.device.type == "cpu" for tensor in tensors_of(loaded).values())


def test_peak_and_time_are_measured_in_fresh_processes() -> None:
    data = compress(target("perceptron"), budget=30_000, seconds=5, repeats=1).to_json()
    assert Path(data["output"]).stat().st_size <= 30_000
    for side in (data["before"], data["after"]):
        assert side["constants"] < side["peak"]
        assert side["nodes"] > 0
        assert side["seconds"] > 0
    assert data["after"]["peak"] < data["before"]["peak"]


def test_layers_get_different_formats_and_beat_one_setting_for_all() -> None:
    report = compress(target("bert"), budget=70_000, seconds=20, repeats=0)
    assert len({row.format for row in report.layers}) > 1
    assert report.relative_error is not None
    assert all("output error" in note for note in report.notes)
    used = next(float(note.split("error ")[1].split("%")[0]) for note in report.notes if "(used)" in note)
    assert used == min(float(note.split("error ")[1].split("%")[0]) for note in report.notes)


def test_unmeasured_errors_are_scaled_when_time_is_over() -> None:
    report = compress(target("perceptron"), budget=30_000, seconds=0, repeats=0)
    assert all(row.error is not None for row in report.layers)


@pytest.mark.parametrize("form", ["int8", "int4", "int4-g128", "int3", "int2"])
def test_one_format_for_all(form: str) -> None:
    report = compress(target("perceptron"), quantize=form, repeats=0)
    assert {row.format for row in report.layers} == {form}
    assert sum(row.after for row in report.layers) < sum(row.before for row in report.layers) / 3
    model, x = models.perceptron()
    with torch.no_grad():
        gap = load_compressed(report.output)(x) - model(x)
        assert report.relative_error == pytest.approx(float(gap.norm() / model(x).norm()), rel=1e-4)


@pytest.mark.parametrize(("text", "form"), [("2:4", "2:4"), ("0.8", "bitmap"), ("csr:0.8", "csr")])
def test_sparsity_is_stored_smaller(text: str, form: str) -> None:
    report = compress(target("perceptron"), sparsify=text, repeats=0)
    assert {row.format for row in report.layers} == {form}
    assert sum(row.after for row in report.layers) < sum(row.before for row in report.layers)
    assert any("break-even" in note for note in report.notes)
    loaded, (_, x) = load_compressed(report.output), models.perceptron()
    weight = loaded[0].weight
    assert float((weight == 0).float().mean()) == pytest.approx(0.5 if text == "2:4" else 0.8, abs=0.01)
    with torch.no_grad():
        dense = nn.functional.linear(x, weight, loaded[0].bias)
        assert torch.allclose(loaded[0](x), dense, atol=1e-5)


def test_sparsity_below_the_break_even_is_kept_dense() -> None:
    report = compress(target("perceptron"), sparsify="csr:0.3", repeats=0)
    assert {row.format for row in report.layers} == {"keep"}
    assert any("kept dense" in note for note in report.notes)


def test_the_metric_is_told_before_and_after() -> None:
    report = compress(target("perceptron"), quantize="int8", metric=target("mean_output"), repeats=0)
    assert report.before.metric == pytest.approx(models.mean_output(models.perceptron()[0]))
    assert report.after.metric == pytest.approx(report.before.metric, abs=0.01)
    assert report.after.metric != report.before.metric


def test_a_folder_is_quantised_as_it_is_read(tmp_path: Path) -> None:
    model, inputs = models.bert()
    model.save_pretrained(tmp_path / "bert")
    report = compress("bert", quantize="int4", repeats=0)
    assert report.relative_error is None
    loaded = load_compressed(report.output)
    with torch.no_grad():
        old, new = model(**inputs).last_hidden_state, loaded(**inputs).last_hidden_state
    assert 0 < float((new - old).norm() / old.norm()) < 0.2
    measured = compress(
        "bert", budget=70_000, calibration=target("bert_inputs"), repeats=0, seconds=10, output="b.safetensors"
    )
    assert Path("b.safetensors").stat().st_size <= 70_000
    assert measured.relative_error is not None


def test_a_module_that_reads_its_layers_weights_still_runs() -> None:
    model, x = models.encoder()
    with torch.no_grad():
        expected = model(x)
    report = compress(target("encoder"), quantize="int8", repeats=0)
    assert {row.name.rpartition(".")[2] for row in report.layers} == {"linear1", "linear2"}
    with torch.no_grad():
        assert torch.allclose(load_compressed(report.output)(x), expected, atol=0.05)


def test_weights_that_something_else_holds_stay() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.free = nn.Linear(8, 8), nn.Linear(8, 8)
            self.other = nn.Bilinear(8, 1, 8)
            self.own = self.a.weight

    assert [layer.name for layer in layers_of(Tied())] == ["free"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_modules_follow_dtype_and_shape(dtype: torch.dtype) -> None:
    weight = torch.randn(40, 70, dtype=dtype)
    packed = PackedWeight.of(quantize(weight.float().numpy(), 8, 64), dtype)
    linear, table = PackedLinear(packed, None), PackedEmbedding(packed)
    x = torch.randn(2, 3, 70, dtype=dtype)
    out = linear(x)
    assert out.dtype == dtype
    assert out.shape == (2, 3, 40)
    assert torch.allclose(out.float(), (x @ weight.t()).float(), atol=0.5, rtol=0.05)
    index = torch.tensor([[3, 39], [0, 3]])
    assert torch.equal(table(index), linear.weight[index])
    half = linear.to(torch.bfloat16)
    assert half.packed.scales.dtype == torch.bfloat16
    assert half(x.bfloat16()).dtype == torch.bfloat16


def test_export_and_fake_tensors_know_the_product() -> None:
    packed = PackedWeight.of(quantize(torch.randn(16, 32).numpy(), 4, 32), torch.float32)
    model = nn.Sequential(PackedLinear(packed, torch.zeros(16)))
    program = torch.export.export(model, (torch.randn(3, 32),))
    x = torch.randn(3, 32)
    assert torch.equal(program.module()(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["2:4", "csr", "bitmap"])
def test_sparse_forms_are_exact_and_their_bytes_are_projected(kind: str, dtype: torch.dtype) -> None:
    from memfit.passes.sparsify import keep_share, keep_two_of_four

    weight = torch.randn(13, 30, dtype=dtype)
    plain = weight.float().numpy()
    mask = keep_two_of_four(plain) if kind == "2:4" else keep_share(plain, 0.7)
    made = SparseWeight.of(kind, weight, mask)
    assert torch.equal(made.dense(), weight * torch.from_numpy(mask))
    assert made.nbytes == FORMATS[kind].stored_bytes(13, 30, dtype.itemsize, int(mask.sum()))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["perceptron", "--budget", "1KiB"], "the smallest feasible is"),
        (["perceptron", "--quantize", "int5"], "no such format"),
        (["perceptron", "--budget", "1MiB", "--formats", "int9"], "no such format"),
        (["perceptron", "--metric", f"{HERE}:mean_output"], "say how"),
        (["perceptron", "--no-run"], "say how"),
        (["perceptron", "--quantize", "int4", "--measure", "--bind", "batch=2"], "--bind, --measure"),
        (["perceptron", "--quantize", "int4", "--budget", "1MiB"], "exactly one"),
        (["perceptron", "--sparsify", "1.5"], "no sparsity"),
        (["perceptron", "--quantize", "int4", "--metric", f"{HERE}:bert_inputs"], "no metric"),
        (["convolutions", "--quantize", "int4"], "no linear layer"),
        (["no_inputs", "--budget", "1MiB"], "calibration"),
        (["not_finite", "--quantize", "int4"], "no finite numbers"),
        (["perceptron", "--quantize", "int4", "--output", "a.onnx"], ".safetensors"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", target(arguments[0]), *arguments[1:]]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said
    assert not list(Path.cwd().glob("*.safetensors"))


def test_with_nothing_said_only_the_exact_passes_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", target("perceptron"), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["after"]["constants"] < data["before"]["constants"]  # the count of the normalisation's batches goes
    assert data["after"]["nodes"] <= data["before"]["nodes"]
    assert data["after"]["peak"] < data["before"]["peak"]
    assert data["max_error"] < 1e-4
    assert data["output"] is None
    assert not list(Path.cwd().iterdir())


def test_the_tradeoff_has_a_line_where_there_is_a_budget(tmp_path: Path) -> None:
    report = compress(
        target("bert"), budget=90_000, seconds=30, repeats=0, tradeoff=True, formats=("int8", "int4", "int2")
    )
    line = [point for point in report.tradeoff if point.series == "per layer"]
    assert [point.file_bytes for point in line] == sorted(point.file_bytes for point in line)
    assert line[-1].error < line[0].error / 2
    chosen = next(point for point in report.tradeoff if point.series == "chosen")
    assert (chosen.file_bytes, chosen.error) == (report.after.file_bytes, report.relative_error)
    pytest.importorskip("matplotlib", reason="the picture extra is not installed")
    from memfit.report.tradeoff_chart import tradeoff_picture

    assert tradeoff_picture(report).startswith(b"\x89PNG")


def test_a_folder_without_calibration_has_no_budget(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(TargetError, match="calibration"):
        compress("m", budget="1MiB")
    with pytest.raises(TargetError, match=r"config\.json"):
        compress("m", quantize="int4")
    with pytest.raises(TargetError, match="metric"):
        compress("m", quantize="int4", metric="judges.py:accuracy")


def test_a_budget_names_the_smallest(tmp_path: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        compress(target("perceptron"), budget=1000)
    assert 1000 < caught.value.needed < 10_000
    report = compress(target("perceptron"), budget=caught.value.needed, seconds=5, repeats=0)
    assert report.after.file_bytes <= caught.value.needed


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    report = compress(target("perceptron"), quantize="int4", repeats=0)
    file, recipe = Path(report.output), Path(report.recipe or "")
    whole, text = file.read_bytes(), recipe.read_text()
    for broken in (b"", whole[:50], b"\xff" * 40, whole[:-10]):
        file.write_bytes(broken)
        with pytest.raises(WeightFileError):
            load_compressed(str(file))
    file.write_bytes(whole)
    for bad in ("", "[]", "{}", text.replace('"int4"', '"int5"'), text.replace('"0"', '"7"')):
        recipe.write_text(bad)
        with pytest.raises(TraceError):
            load_compressed(str(file))
    recipe.write_text(text)
    with pytest.raises(TraceError, match="another model"):
        load_compressed(str(file), nn.Sequential(nn.Linear(64, 128)))
    load_compressed(str(file))


def test_the_command_prints_its_json_and_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["optimize", target("perceptron"), "--quantize", "int4", "--no-run", "--json", "--html", "p.html"]
    assert main([*command, "--metric", target("mean_output")]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"before", "after", "max_error", "output", "layers"} <= set(data)
    points = {point["name"]: point for point in data["tradeoff"]}
    assert points["int4"]["error"] == pytest.approx(data["relative_error"])
    assert points["int4"]["metric"] == data["after"]["metric"]
    assert points["int2"]["error"] > points["int4"]["error"] > points["int8"]["error"]
    assert points["90% zeros"]["error"] > points["50% zeros"]["error"] > 0
    assert points["90% zeros"]["file_bytes"] < points["50% zeros"]["file_bytes"]
    page = Path("p.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert "Quality against bytes" in page
    assert "90% zeros" in page


@pytest.mark.parametrize("group", [32, 128])
def test_torchs_own_four_bit_product_is_wrapped(group: int) -> None:
    weight, x = torch.randn(64, 256).bfloat16(), torch.randn(2, 3, 256).bfloat16()
    packed = NativeInt4Weight.of(weight, group)
    layer = PackedLinear(packed, torch.ones(64).bfloat16())
    expected = nn.functional.linear(x.float(), weight.float()) + 1
    assert float((layer(x).float() - expected).norm() / expected.norm()) < 0.15
    assert float((layer.weight.float() - weight.float()).abs().max()) < 0.3
    assert packed.nbytes == library_bytes(f"torch-int4pack-g{group}", 64, 256)
    with pytest.raises(ValueError, match="rows go by 16"):
        NativeInt4Weight.of(weight[:10], group)


def test_torchs_own_format_is_for_bfloat16_models() -> None:
    report = compress(target("half_perceptron"), quantize="int4-torch", repeats=0)
    assert {row.name: row.format for row in report.layers} == {"0": "int4-torch", "3": "keep"}
    loaded, (model, x) = load_compressed(report.output), models.half_perceptron()
    with torch.no_grad():
        old, new = model(x).float(), loaded(x).float()
    assert float((new - old).norm() / old.norm()) == pytest.approx(report.relative_error, rel=0.05)
    kept = compress(target("perceptron"), quantize="int4-torch", repeats=0)
    assert {row.format for row in kept.layers} == {"keep"}
    assert any("does not take it" in note for note in kept.notes)


@pytest.mark.parametrize("name", ["int8", "int6", "int4", "int3", "int2", "2:4", "bitmap", "csr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transients_of_a_product_are_projected_within_2_percent(name: str, dtype: torch.dtype) -> None:
    from memfit.frameworks.torch import allocator_hook
    from memfit.passes.sparsify import keep_share, keep_two_of_four

    rows, columns, tokens = 640, 1024, 24
    weight, form = torch.randn(rows, columns, dtype=dtype), FORMATS[name]
    plain = weight.float().numpy()
    if form.kind == "int":
        layer = PackedLinear(PackedWeight.of(quantize(plain, form.bits, form.group), dtype), None)
    elif dtype != torch.float32:
        pytest.skip("the sparse product of the library is float32; others are made dense in the model's dtype")
    else:
        mask = keep_two_of_four(plain) if name == "2:4" else keep_share(plain, 0.8)
        layer = PackedLinear(SparseWeight.of(name, weight, mask), None)
    x = torch.randn(tokens, columns, dtype=dtype)
    with allocator_hook.installed(), torch.no_grad():
        layer(x)
        before = allocator_hook.live_bytes()
        allocator_hook.reset_peak()
        out = layer(x)
        measured = allocator_hook.peak_bytes() - before - out.nbytes
    assert form.transient_bytes(rows, columns, tokens, dtype.itemsize) == pytest.approx(measured, rel=0.02)


def test_a_second_budget_starts_from_the_original() -> None:
    model, x = models.perceptron()
    work = Compression(Step(model, x, train=False), layers_of(model))
    names = ("keep", "int8", "int4", "int2")
    first = work.choose(16_000, names)
    assert work.choose(30_000, names).error.relative < first.error.relative
    again = work.choose(16_000, names)
    assert again.formats == first.formats
    assert again.error.relative == pytest.approx(first.error.relative)
