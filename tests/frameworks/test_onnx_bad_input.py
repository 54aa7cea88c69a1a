"""ONNX files that cannot be used: one clear message, exit code 2, no traceback, never a file outside of the model's folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_programs import model, node, onnx, saved, value, weights

from memfit.cli.main import main


def refused(capsys: Any, *arguments: str) -> str:
    """The message of a command that ends with exit code 2, checked against its --json object."""
    code = main([*arguments, "--json"])
    out, error = capsys.readouterr()
    answer = json.loads(out)
    assert code == 2
    assert "Traceback" not in error
    assert "bug of memfit" not in error
    return str(answer["error"]["message"])


def relu(**more: Any) -> Any:
    return model([node("Relu", "x", "y")], [value("x", ["n", 4])], [value("y", ["n", 4])], **more)


@pytest.mark.parametrize("command", ["predict", "plan", "optimize"])
@pytest.mark.parametrize(
    ("content", "why"),
    [(b"\x08\x0ahello world, this is no model", "it is no ONNX model"), (b"", "the file is empty")],
)
def test_a_damaged_file(tmp_path: Path, capsys: Any, command: str, content: bytes, why: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert why in refused(capsys, command, str(path))


def test_a_file_cut_off_in_the_middle(tmp_path: Path, capsys: Any) -> None:
    data = model([node("MatMul", "x w", "y")], [value("x", ["n", 64])], [value("y", ["n", 64])], {"w": weights(64, 64)})
    path = tmp_path / "model.onnx"
    path.write_bytes(data.SerializeToString()[:-9000])
    assert "no ONNX model" in refused(capsys, "optimize", str(path))


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path, capsys: Any) -> None:
    assert "no such file" in refused(capsys, "predict", str(tmp_path / "none.onnx"))
    (tmp_path / "folder.onnx").mkdir()
    assert "it is a folder" in refused(capsys, "predict", str(tmp_path / "folder.onnx"))


def external(folder: Path, location: str, offset: int = 0, length: int = 1024) -> Path:
    made = model([node("MatMul", "x w", "y")], [value("x", ["n", 16])], [value("y", ["n", 16])], {"w": weights(16, 16)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return saved(made, folder)


def test_weights_beside_the_model_that_are_missing(tmp_path: Path, capsys: Any) -> None:
    assert "does not exist" in refused(capsys, "predict", str(external(tmp_path, "weights.bin")), "--bind", "n=2")


@pytest.mark.parametrize("where", ["../outside.bin", "/outside.bin", "link.bin", "deep/../../outside.bin"])
def test_weights_outside_of_the_models_folder_are_not_read(tmp_path: Path, capsys: Any, where: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    secret = tmp_path / "outside.bin"
    secret.write_bytes(bytes(1024))
    (folder / "link.bin").symlink_to(secret)
    location = str(secret) if where.startswith("/") else where
    assert "outside of the model's folder" in refused(
        capsys, "predict", str(external(folder, location)), "--bind", "n=2"
    )


def test_weights_beside_the_model_that_are_too_short(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    assert "that file ends at 1000" in refused(
        capsys, "predict", str(external(tmp_path, "weights.bin")), "--bind", "n=2"
    )


def test_weights_beside_the_model_are_read_where_they_are_whole(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "weights.bin").write_bytes(weights(16, 16).tobytes())
    path = external(tmp_path, "weights.bin")
    assert main(["predict", str(path), "--bind", "n=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["peak"]["live"] == 1024 + 2 * 16 * 4 * 2


def linear() -> Any:
    nodes = [node("MatMul", "x w", "t"), node("Relu", "t", "y")]
    return model(nodes, [value("x", ["n", 16])], [value("y", ["n", 16])], {"w": weights(16, 16)})


def more_bytes(made: Any) -> None:
    made.graph.initializer[0].raw_data += b"more"


def another_type(made: Any) -> None:
    made.graph.initializer[0].data_type = 99


def nothing_read(made: Any) -> None:
    made.graph.node[0].input[0] = "nothing"


def made_twice(made: Any) -> None:
    made.graph.node[1].output[0] = "t"


def half_a_branch(made: Any) -> None:
    body = onnx.helper.make_graph([node("Relu", "x", "u")], "body", [], [value("u", None)])
    made.graph.node[1].CopyFrom(onnx.helper.make_node("If", ["t"], ["y"], then_branch=body))


def loop_of(*nodes: Any) -> Any:
    def change(made: Any) -> None:
        numbers = [value("i", [], "int64"), value("c", [], "bool"), value("s", ["n", 16])]
        outputs = [value("d", [], "bool"), *([value("b", ["n", 16])] if len(nodes) > 1 else [])]
        body = onnx.helper.make_graph(list(nodes), "body", numbers, outputs)
        made.graph.node[1].CopyFrom(onnx.helper.make_node("Loop", ["", "", "t"], ["y"], body=body))

    return change


def turned_too_far(made: Any) -> None:
    made.graph.node[1].CopyFrom(node("Transpose", "t", "y", perm=[0, 5]))
    made.graph.output[0].type.tensor_type.ClearField("shape")


SAME = node("Identity", "c", "d")
BROKEN = {
    "more bytes than its shape says": (more_bytes, "takes 1024 bytes, and there are 1028"),
    "an element type that is none": (another_type, "element type 99"),
    "a name that nothing makes": (nothing_read, "reads 'nothing', which nothing makes"),
    "a name made twice": (made_twice, "two of its operations make 't'"),
    "a branch without its other half": (half_a_branch, "no else_branch"),
    "a loop that hands on too little": (loop_of(SAME), "a body from 3 values to 1"),
    "a cycle in a body": (loop_of(SAME, node("Add", "s b", "a"), node("Relu", "a", "b")), "cyclic"),
    "axes that are not there": (turned_too_far, "its operation Transpose breaks a rule of ONNX"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_graph_that_breaks_a_rule(tmp_path: Path, capsys: Any, case: str) -> None:
    change, why = BROKEN[case]
    made = linear()
    change(made)
    path = str(saved(made, tmp_path))
    for command in (["predict", path, "--bind", "n=2"], ["optimize", path]):
        assert why in refused(capsys, *command)


WHOLE: dict[str, Any] = {
    "i": np.array([9]), "a": np.array(5), "s": np.array([5, 5]), "w": weights(2, 7, 3), "v": weights(2, 3, 9), "g": weights(4),
    "p": np.array([-9, 0, 0, 0, 0, 0]), "e": np.zeros((1, 1, 1), np.int64), "u": weights(1, 1, 1), "b": weights(3, 5),
    "l": np.array([1, 1]),
}  # fmt: skip
UNFIT = {
    "axis of Softmax": (node("Softmax", "x", "y", axis=3), "breaks a rule of ONNX: 'axis' must be in"),
    "axis of Gather": (node("Gather", "x l", "y", axis=4), "axis must be in"),
    "place": (node("Gather", "x i", "y"), "reads place 9 of 2"),
    "axis of GatherElements": (node("GatherElements", "x e", "y", axis=4), "has axis 4, and its tensor has 3"),
    "axis of ScatterElements": (node("ScatterElements", "x e u", "y", axis=7), "has axis 7"),
    "axis of LayerNormalization": (node("LayerNormalization", "x g", "y", axis=5), "has axis 5"),
    "axis of CumSum": (node("CumSum", "x a", "y"), "has axis 5"),
    "axis of ReverseSequence": (node("ReverseSequence", "x l", "y", batch_axis=4, time_axis=0), "has axis 4"),
    "order of axes": (node("Transpose", "x", "y", perm=[0, 1]), "orders 2 axes of 3"),
    "elements": (node("Reshape", "x s", "y"), "25 elements of 24"),
    "channels": (node("Conv", "x w", "y"), "has a weight for 7 channels, and its tensor has 3"),
    "blocks": (node("DepthToSpace", "z", "y", blocksize=5), "divides 3 channels into blocks of 25"),
    "window of Conv": (node("Conv", "x v", "y"), "would have a size below zero: [2, 2, -4]"),
    "window of MaxPool": (node("MaxPool", "x", "y", kernel_shape=[9]), "size below zero"),
    "pads": (node("Pad", "x p", "y"), "size below zero"),
    "sizes of Add": (node("Add", "x b", "y"), "its operation Add breaks a rule of ONNX: Incompatible dimensions"),
    "sizes of MatMul": (node("MatMul", "x b", "y"), "its operation MatMul breaks a rule of ONNX"),
    "steps": (node("Slice", "x l l e e", "y"), "its operation Slice breaks a rule of ONNX"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_an_operation_whose_operands_do_not_fit(tmp_path: Path, capsys: Any, case: str) -> None:
    """Runtimes reject each of these; no sizes are told of them."""
    made, why = UNFIT[case]
    constants = {name: array for name, array in WHOLE.items() if name in made.input}
    inputs = [value(name, shape) for name, shape in (("x", [2, 3, 4]), ("z", [2, 3, 4, 4])) if name in made.input]
    path = str(saved(model([made], inputs, [value("y", None)], constants, opset=18), tmp_path))
    for command in (["predict", path], ["optimize", path]):
        assert why in refused(capsys, *command)


def test_sizes_that_the_file_states_wrongly_and_operators_that_onnx_cannot_follow_are_let_pass(tmp_path: Path) -> None:
    stale = model([node("Relu", "x", "t"), node("Abs", "t", "y")], [value("x", [2, 3])], [value("y", [7, 3])])
    stale.graph.value_info.append(value("t", [9, 9]))
    assert main(["predict", str(saved(stale, tmp_path))]) == 0
    body = model(
        [node("MeanVarianceNormalization", "x", "y")], [value("x", [2, 3, 4, 4])], [value("y", None)], opset=13
    )
    assert main(["predict", str(saved(body, tmp_path, "body.onnx"))]) == 0


def test_a_name_that_is_no_text(tmp_path: Path, capsys: Any) -> None:
    path = saved(linear(), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"MatMul", b"Mat\x8ful").replace(b"\x01t", b"\x01\x8f"))
    assert "is no text" in refused(capsys, "optimize", str(path))


def test_weights_beside_the_model_of_another_size(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1024))
    path = str(external(tmp_path, "weights.bin", length=1000))
    assert "takes 1024 bytes, and there are 1000" in refused(capsys, "predict", path, "--bind", "n=2")
    path = str(external(tmp_path, "a\0b"))
    assert "outside of the model's folder" in refused(capsys, "predict", path, "--bind", "n=2")


def test_an_unknown_operator(tmp_path: Path, capsys: Any) -> None:
    made = model([node("Unheard", "x", "y")], [value("x", [2])], [value("y", [2])])
    assert "Unheard" in refused(capsys, "predict", str(saved(made, tmp_path)))


def test_a_cyclic_graph(tmp_path: Path, capsys: Any) -> None:
    made = model([node("Add", "x b", "a"), node("Relu", "a", "b")], [value("x", [2])], [value("b", [2])])
    assert "cyclic" in refused(capsys, "predict", str(saved(made, tmp_path)))


def test_nodes_in_the_wrong_order_are_put_right(tmp_path: Path, capsys: Any) -> None:
    made = model([node("Relu", "a", "y"), node("Exp", "x", "a")], [value("x", [2])], [value("y", [2])])
    assert main(["predict", str(saved(made, tmp_path)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["at"]["op"] in ("onnx.Exp", "onnx.Relu")


def test_a_file_over_two_gib(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 5)  # sparse: takes no room
    message = refused(capsys, "predict", str(path))
    assert "2 GiB" in message
    assert "external data" in message


def test_sizes_that_overflow_int64(tmp_path: Path, capsys: Any) -> None:
    shape = np.array([2**40, 2**40], dtype=np.int64)
    made = model([node("ConstantOfShape", "s", "y")], [], [value("y", None)], {"s": shape})
    assert "more than 2^63 - 1" in refused(capsys, "predict", str(saved(made, tmp_path)))
    assert "more than 2^63 - 1" in refused(capsys, "predict", str(saved(relu(), tmp_path)), "--bind", f"n={2**62}")


def test_a_custom_operator_whose_sizes_nothing_tells(tmp_path: Path, capsys: Any) -> None:
    made = model(
        [node("Odd", "x", "t", domain="my.domain"), node("Relu", "t", "y")], [value("x", [2])], [value("y", None)]
    )
    made.opset_import.append(onnx.helper.make_opsetid("my.domain", 1))
    message = refused(capsys, "predict", str(saved(made, tmp_path)))
    assert "my.domain:Odd" in message
    assert "value_info" in message


def test_a_custom_operator_with_sizes_is_planned_and_not_optimised_without_its_kernel(
    tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    made = model(
        [node("Odd", "x", "t", domain="my.domain"), node("Relu", "t", "y")], [value("x", [2])], [value("y", [2])]
    )
    made.opset_import.append(onnx.helper.make_opsetid("my.domain", 1))
    made.graph.value_info.append(value("t", [2]))
    path = str(saved(made, tmp_path))
    assert main(["plan", path, "--json"]) == 0
    capsys.readouterr()
    output = tmp_path / "new.onnx"
    assert "--no-verify" in refused(capsys, "optimize", path, "--output", str(output))
    assert not output.exists()
    assert main(["optimize", path, "--output", str(output), "--no-verify", "--json"]) == 0
    assert [n.op_type for n in onnx.load(str(output)).graph.node] == ["Odd", "Relu"]


def test_open_dimensions_without_numbers(tmp_path: Path, capsys: Any) -> None:
    path = str(saved(relu(), tmp_path))
    assert "--bind n=8" in refused(capsys, "predict", path)
    assert "no dimension 'm'" in refused(capsys, "predict", path, "--bind", "m=2")
    assert "NAME=NUMBER" in refused(capsys, "predict", path, "--bind", "n")
    assert "--bind" in refused(capsys, "predict", path, "--set", "n=2")


def test_a_bound_dimension_for_what_is_no_model_file(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "step_of_torch.py").write_text(
        "import torch\ndef step():\n    return torch.nn.Linear(2, 2), torch.ones(1, 2)\n"
    )
    assert "model file" in refused(capsys, "predict", f"{tmp_path / 'step_of_torch.py'}:step", "--bind", "n=2")


def test_what_optimize_cannot_read_is_told_what_it_could(tmp_path: Path, capsys: Any) -> None:
    assert "SavedModel" in refused(capsys, "optimize", str(tmp_path))
    (tmp_path / "model.txt").write_text("text")
    assert ".onnx" in refused(capsys, "optimize", str(tmp_path / "model.txt"))
    assert "no such file" in refused(capsys, "optimize", str(tmp_path / "none"))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "--quantize" in refused(capsys, "optimize", str(tmp_path))


def test_onnx_that_is_not_installed(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(saved(relu(), tmp_path))
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'memfit[onnx]'" in refused(capsys, "predict", path, "--bind", "n=2")


def test_the_runtime_that_is_not_installed(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(saved(relu(), tmp_path))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime is not installed" in refused(capsys, "optimize", path)
