"""Files of torch.export: read without running them, sized, optimised with equal results and open axes, bad ones refused."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from memfit.api.model_files import program_of
from memfit.api.optimizing import optimize
from memfit.api.prediction import predict
from memfit.cli.main import main
from memfit.errors import TargetError
from memfit.frameworks.torch.exported_capture import captured_file
from memfit.frameworks.torch.exported_in_place import functional, in_place_where_dying
from memfit.ir.program import programs

DIM = torch.export.Dim


class Network(torch.nn.Module):
    """Convolution with normalisation, in-place operations, views, dropout, a block without gradients, equal weights."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)
        self.linear, self.table = torch.nn.Linear(8, 8), torch.nn.Embedding(10, 8)
        self.drop = torch.nn.Dropout(0.5)
        self.register_buffer("copy", self.linear.weight.detach().clone())
        generator = torch.Generator().manual_seed(1)
        for tensor in (*self.norm.parameters(), *self.norm.buffers()):
            if tensor.is_floating_point():
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5

    def forward(self, image: Any, ids: Any) -> Any:
        x = self.norm(self.convolution(image)).relu_().mean((2, 3))
        with torch.no_grad():
            rows = self.table(ids).sum(1)
        x = self.drop(self.linear(x) + rows @ self.copy.t())
        first, second = torch.split(x.view(x.shape[0] * 2, -1).reshape(-1, 8), 4, 1)
        return {"product": torch.tanh(first * second + 1), "rows": x.shape[0], "both": [x + 1, first.sigmoid()]}


class Loop(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        def turn(i: Any, a: Any) -> Any:
            return i + 1, torch.tanh(a @ a.t() @ a)

        _, a = torch.while_loop(lambda i, a: i < 5, turn, (torch.tensor(0), x))
        return torch.cond(a.sum() > 0, lambda v: v.sin(), lambda v: v.cos() + 1, (a,))


def saved(path: Path, model: torch.nn.Module, inputs: tuple[Any, ...], shapes: Any) -> Path:
    torch.export.save(torch.export.export(model.eval(), inputs, dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    batch = DIM("batch", min=2)
    path = tmp_path_factory.mktemp("exported") / "network.pt2"
    inputs = (torch.randn(4, 3, 8, 8), torch.zeros(4, 5, dtype=torch.int64))
    return saved(path, Network(), inputs, ({0: batch}, {0: batch, 1: DIM("length", min=1, max=64)}))


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "loop.pt2"
    return saved(path, Loop(), (torch.randn(4, 8),), ({0: DIM("batch", min=2)},))


def test_every_value_has_a_size(network: Path, loop: Path) -> None:
    for path, dimensions in ((network, ("batch", "ids_1")), (loop, ("batch",))):
        program = program_of(path)
        assert program.dimensions == dimensions
        assert all(given.known for inner in programs(program) for given in inner.types.values())
    assert sum(len(op.bodies) for op in program_of(loop).operations) == 4


def test_a_file_is_predicted_as_the_step_it_was_made_of(network: Path) -> None:
    report = predict(network, bound={"batch": 6, "ids_1": 5})
    images, ids = torch.randn(6, 3, 8, 8), torch.zeros(6, 5, dtype=torch.int64)
    from memfit import Step

    step = predict(Step(Network().eval(), (images, ids)), steps=1)
    assert abs(report.peak.live - step.peak.live) <= 0.02 * step.peak.live
    assert report.categories["parameters"] == step.categories["parameters"]


def test_optimised_files_run_in_torch_with_open_axes(network: Path, loop: Path, tmp_path: Path) -> None:
    for path, inputs in (
        (network, lambda n: (torch.randn(n, 3, 8, 8), torch.randint(0, 10, (n, n + 2)))),
        (loop, lambda n: (torch.randn(n, 8),)),
    ):
        output = tmp_path / path.name
        report = optimize(path, output=output)
        assert report.after.nodes < report.before.nodes
        assert report.after.constants <= report.before.constants
        assert report.after.peak <= report.before.peak
        original, smaller = (torch.export.load(p).module() for p in (path, output))
        for size in (2, 7):
            given = inputs(size)
            expected, found = (torch.utils._pytree.tree_leaves(m(*given)) for m in (original, smaller))
            for a, b in zip(expected, found, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    kinds = [op.kind for op in program_of(tmp_path / network.name).operations]
    assert not {"aten.batch_norm.default", "aten.dropout.default"} & set(kinds)


class Normalised(torch.nn.Module):
    """Rows and sequences behind a product, and two convolutions that share their weight."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.other = torch.nn.Linear(8, 6), torch.nn.Linear(8, 6)
        self.rows, self.sequence = torch.nn.BatchNorm1d(6), torch.nn.BatchNorm1d(5)
        self.shared = torch.nn.Parameter(torch.randn(24, 3, 3, 3))
        self.first, self.second = torch.nn.BatchNorm2d(24), torch.nn.BatchNorm2d(24)
        generator = torch.Generator().manual_seed(1)
        for module in (self.rows, self.sequence, self.first, self.second):
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point():
                    tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5

    def forward(self, x: Any, y: Any, image: Any) -> Any:
        convolved = [torch.conv2d(image, self.shared, stride=stride) for stride in (1, 2)]
        return (
            self.rows(self.linear(x)),
            self.sequence(self.other(y)),
            self.first(convolved[0]),
            self.second(convolved[1]),
        )


def test_normalisation_goes_into_weights_that_nothing_else_reads(tmp_path: Path) -> None:
    inputs = (torch.randn(4, 8), torch.randn(4, 5, 8), torch.randn(4, 3, 7, 7))
    path = saved(tmp_path / "m.pt2", Normalised(), inputs, None)
    report = optimize(path, output=tmp_path / "small.pt2")
    assert report.after.constants <= report.before.constants
    assert report.max_error is not None
    assert 0 < report.max_error <= 1e-5
    kinds = [op.kind for op in program_of(tmp_path / "small.pt2").operations]
    assert kinds.count("aten.batch_norm.default") == 3  # not of the rows


def test_writing_in_place_goes_and_comes_again(network: Path) -> None:
    program = captured_file(network).program
    plain, why = functional(program)
    assert why == ""
    assert not any(op.attribute("memory") == "writes" for op in plain.operations)
    again = in_place_where_dying(plain)
    kinds = [op.kind for op in again.operations if op.attribute("memory") == "writes"]
    assert "aten.relu_.default" in kinds


class Overlap(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        y = x * 2
        y[:, 0].add_(1)
        return y.sum(1)


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Any) -> Any:
        self.calls.add_(1)
        return x * self.calls


@pytest.mark.parametrize(("model", "text"), [(Overlap(), "the same bytes"), (Counting(), "writes over 'calls'")])
def test_what_is_written_over_while_it_is_read_is_refused(
    model: torch.nn.Module, text: str, tmp_path: Path, capsys: Any
) -> None:
    path = saved(tmp_path / "m.pt2", model, (torch.randn(3, 4),), None)
    assert predict(path).peak.live > 0
    assert text in refused(capsys, "optimize", str(path))


def refused(capsys: Any, *arguments: str) -> str:
    code = main(list(arguments))
    text = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in text
    assert "bug of memfit" not in text
    return str(text)


def changed(path: Path, to: Path, entry: str, change: Callable[[bytes], bytes | None]) -> Path:
    """A copy of an archive with one entry changed, or left out (None)."""
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(to, "w") as made:
        for info in given.infolist():
            data: bytes | None = given.read(info)
            if info.filename.endswith(entry):
                data = change(data or b"")
            if data is not None:
                made.writestr(info.filename, data)
    return to


def edited(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        value = json.loads(data)
        change(value)
        return json.dumps(value).encode()

    return edit


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "ran")


def test_nothing_of_a_file_is_run(network: Path, tmp_path: Path, capsys: Any) -> None:
    sprung = tmp_path / "sprung"
    code = f"__import__('pathlib').Path({str(sprung)!r}).write_text('ran')"

    def sizes(model: Any) -> None:
        row = model["graph_module"]["graph"]["tensor_values"]["image"]
        row["sizes"][0]["as_expr"]["expr_str"] = code

    def guards(model: Any) -> None:
        model["guards_code"] = [code]

    traps = [
        changed(network, tmp_path / "inputs.pt2", "sample_inputs/model.pt", lambda _: pickle.dumps(Trap(sprung))),
        changed(network, tmp_path / "sizes.pt2", "models/model.json", edited(sizes)),
        changed(network, tmp_path / "guards.pt2", "models/model.json", edited(guards)),
    ]
    for trap in traps:
        main(["predict", str(trap), "--bind", "batch=4", "--bind", "ids_1=4"])
        main(["plan", str(trap), "--bind", "batch=4", "--bind", "ids_1=4", "--time-limit", "1"])
        main(["optimize", str(trap)])
        capsys.readouterr()
    assert not sprung.exists()
    # the trap itself works: a plain unpickling springs it
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()


def test_what_only_a_pickle_holds_is_refused(network: Path, tmp_path: Path, capsys: Any) -> None:
    def pickled(config: Any) -> None:
        config["config"]["linear.weight"]["use_pickle"] = True

    path = changed(network, tmp_path / "pickled.pt2", "model_weights_config.json", edited(pickled))
    for command in ("predict", "plan", "optimize"):
        assert "'linear.weight' is stored as a pickle" in refused(capsys, command, str(path))


@pytest.mark.parametrize("target", ["os.system", "torch.ops.aten.from_file.default", "builtins.eval", "torch.load"])
def test_no_other_function_is_called(target: str, network: Path, tmp_path: Path, capsys: Any) -> None:
    def call(model: Any) -> None:
        for node in model["graph_module"]["graph"]["nodes"]:
            if node["target"] == "torch.ops.aten.tanh.default":
                node["target"] = target

    path = changed(network, tmp_path / "call.pt2", "models/model.json", edited(call))
    assert predict(path, bound={"batch": 2, "ids_1": 2}).peak.live > 0  # from its sizes alone
    assert "is unknown here" in refused(capsys, "optimize", str(path))


def test_bad_files(network: Path, tmp_path: Path, capsys: Any) -> None:
    def no_sizes(model: Any) -> None:
        del model["graph_module"]["graph"]["tensor_values"]["linear"]

    def negative(model: Any) -> None:
        model["graph_module"]["graph"]["tensor_values"]["linear"]["sizes"][1]["as_int"] = -1

    def nameless(model: Any) -> None:
        model["graph_module"]["module_call_graph"][0]["fqn"] = "x"

    def large(config: Any) -> None:
        config["config"]["linear.weight"]["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}, {"as_int": 8}]

    def old(model: Any) -> None:
        model["schema_version"]["major"] = 5

    whole = network.read_bytes()
    (tmp_path / "short.pt2").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt2").write_bytes(b"")
    (tmp_path / "other.pt2").write_bytes(b"no archive")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "weights.pt2")
    cases = {
        "short.pt2": "damaged", "empty.pt2": "damaged", "other.pt2": "damaged", "missing.pt2": "no such file",
        "weights.pt2": "no exported program",
        changed(network, tmp_path / "a.pt2", "models/model.json", edited(no_sizes)).name: "damaged",
        changed(network, tmp_path / "b.pt2", "model_weights_config.json", edited(large)).name: "the file holds",
        changed(network, tmp_path / "c.pt2", "weights/weight_0", lambda _: None).name: "missing",
        changed(network, tmp_path / "d.pt2", "models/model.json", edited(old)).name: "format is 5.x",
        changed(network, tmp_path / "e.pt2", "models/model.json", lambda _: b"[[[").name: "damaged",
        changed(network, tmp_path / "f.pt2", "models/model.json", edited(negative)).name: "damaged",
        changed(network, tmp_path / "g.pt2", "models/model.json", edited(nameless)).name: "damaged",
    }  # fmt: skip
    for name, text in cases.items():
        for command in ("predict", "plan", "optimize"):
            assert text in refused(capsys, command, str(tmp_path / name)), name
    assert "--bind" in refused(capsys, "predict", str(network))
    assert "no dimension 'sequence'" in refused(capsys, "predict", str(network), "--bind", "sequence=3")


def test_an_operator_that_nobody_registered(network: Path, tmp_path: Path) -> None:
    def own(model: Any) -> None:
        for node in model["graph_module"]["graph"]["nodes"]:
            if node["target"] == "torch.ops.aten.tanh.default":
                node["target"] = "torch.ops.mylib.tanh.default"

    path = changed(network, tmp_path / "own.pt2", "models/model.json", edited(own))
    assert predict(path, bound={"batch": 2, "ids_1": 2}).peak.live > 0
    with pytest.raises(TargetError, match=r"mylib\.tanh\.default is unknown here"):
        optimize(path)


def test_a_step_of_torch_is_exported_and_optimised(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "steps_to_export.py"
    file.write_text(
        "import torch\n"
        "def step(batch=4, train=False):\n"
        "    m = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(16, 2))\n"
        "    return (m, torch.randn(batch, 8), torch.optim.SGD(m.parameters(), 0.1)) if train else (m, torch.randn(batch, 8))\n"
    )
    output = tmp_path / "small.pt2"
    assert main(["optimize", f"{file}:step", "--output", str(output)]) == 0
    assert program_of(output).dimensions == ("batch",)
    assert torch.export.load(output).module()(torch.randn(9, 8)).shape == (9, 2)
    capsys.readouterr()
    assert "written as .pt2" in refused(capsys, "optimize", f"{file}:step", "--output", str(tmp_path / "small.onnx"))
    assert "at inference" in refused(capsys, "optimize", f"{file}:step", "--set", "train=True")
