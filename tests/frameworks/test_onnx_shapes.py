"""Every tensor of every ONNX graph has a size: the graphs that come inside onnx, and hand-made loops and branches.

Sizes are held against those that ONNX Runtime really makes, for every intermediate value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_programs import model, node, onnx, value, weights

from memfit.analyses.lowering import lower, numbers_for
from memfit.errors import TargetError
from memfit.frameworks.comparing import inputs_for
from memfit.frameworks.onnx import optimizing
from memfit.frameworks.onnx.capture import capture, capture_model
from memfit.frameworks.onnx.running import compare, session
from memfit.frameworks.onnx.writing import write_model
from memfit.ir.dimension import number
from memfit.ir.program import Program, programs
from memfit.passes.exact import SLACK, totals

I64 = np.int64
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
GRAPHS = sorted(DATA.rglob("*.onnx"))
FAMILIES = ("light", "simple", "pytorch-converted", "pytorch-operator")
SEVERAL_SECONDS = ("light_vgg19", "light_zfnet512", "light_bvlc_alexnet")


def of_family(family: str) -> list[Path]:
    return [path for path in GRAPHS if path.is_relative_to(DATA / family)]


def data_of(path: Path, program: Program) -> dict[str, Any] | None:
    """The inputs that come with a graph."""
    folder = path.parent / "test_data_set_0"
    files = [folder / f"input_{index}.pb" for index in range(len(program.inputs))]
    if not all(file.is_file() for file in files):
        return None
    given: dict[str, Any] = {}
    for name, file in zip(program.inputs, files, strict=True):
        holder = onnx.SequenceProto() if program.types[name].form else onnx.TensorProto()
        holder.ParseFromString(file.read_bytes())
        read = onnx.numpy_helper.to_list if program.types[name].form else onnx.numpy_helper.to_array
        given[name] = read(holder)
    return given


def agree(made: Any, path: Path | None = None, size: int = 3, inputs: dict[str, Any] | None = None) -> Program:
    """The captured program, its sizes held against a real run of every value."""
    program = capture_model(made, path).program
    for inner in programs(program):
        for operation in inner.operations:
            assert all(inner.types[name].known for name in operation.outputs if name), operation
    numbers = numbers_for(program, {}, default=size)
    lower(program, numbers)
    every = onnx.ModelProto()
    every.CopyFrom(made)
    stated = {o.name for o in made.graph.output}
    names = [n for op in program.operations for n in op.outputs if n and n not in stated]
    every.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    running = session(every.SerializeToString(), optimise=False, threads=1)
    given = inputs_for(program, numbers) if inputs is None else inputs
    for output, array in zip(running.get_outputs(), running.run(None, given), strict=True):
        kind = program.types[output.name]
        if not isinstance(array, np.ndarray) or kind.form:
            continue
        sizes = tuple(number(size, numbers) for size in kind.shape or ())
        open_ended = any("." in str(size) for size in kind.shape or ())
        pairs = list(zip(array.shape, sizes, strict=True)) if len(sizes) == array.ndim else [(1, 0)]
        fits = all(a <= b if open_ended else a == b for a, b in pairs)
        assert fits, (output.name, str(kind), sizes, array.shape)
        assert array.dtype == object or array.dtype.name == kind.dtype
    return program


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_the_graphs_inside_onnx_has_a_size(family: str) -> None:
    for path in of_family(family):
        program = capture(path).program
        for inner in programs(program):
            for operation in inner.operations:
                assert all(inner.types[name].known for name in operation.outputs if name), (path, operation)
        lower(program, numbers_for(program, {}, default=3))
    assert len(GRAPHS) >= 140


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_sizes_and_optimised_outputs_agree_with_a_real_run(family: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    ran = 0
    for path in of_family(family):
        program = capture(path).program
        given = data_of(path, program)
        if given is None:
            continue
        try:
            session(str(path), threads=1)
        except TargetError:
            continue  # operators of a version that the runtime has no kernels for
        if not any(program.types[name].form or program.types[name].dtype == "string" for name in program.types):
            try:
                agree(onnx.load(str(path)), path, inputs=given)
            except Exception as error:
                raise AssertionError(path) from error
        found = optimizing.smaller(path)
        write_model(found.optimized.program, found.captured.weights, tmp_path / "new.onnx")
        result = compare(program, (str(path), str(tmp_path / "new.onnx")), {}, inputs=given)
        assert result.max_error <= 1e-5, path
        before = totals(program, {})
        assert all(a <= b + SLACK for a, b in zip(totals(found.optimized.program, {}), before, strict=True)), path
        ran += 1
    assert ran >= 10


ZOO = [path for path in of_family("light") if path.stem not in SEVERAL_SECONDS]


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_the_zoo_topologies_keep_their_outputs_and_lose_bytes(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    found = optimizing.smaller(path)
    write_model(found.optimized.program, found.captured.weights, tmp_path / "new.onnx")
    before, after = found.captured.program, found.optimized.program
    assert compare(before, (str(path), str(tmp_path / "new.onnx")), {}).max_error <= 1e-5
    assert totals(after, {}) <= totals(before, {})
    assert after.node_count < before.node_count


def test_a_loop_that_grows_its_state_is_bounded(tmp_path: Path) -> None:
    body = onnx.helper.make_graph(
        [node("Identity", "go", "on"), node("Concat", "h x", "next", axis=0), node("ReduceSum", "next", "seen", keepdims=0)],
        "body", [value("turn", [], "int64"), value("go", [], "bool"), value("h", ["k", 4])],
        [value("on", [], "bool"), value("next", ["k2", 4]), value("seen", [])],
    )  # fmt: skip
    nodes = [node("Loop", "turns _ x", "last all", body=body), node("Relu", "last", "y")]
    outputs = [value("y", ["m", 4]), value("all", [3])]
    made = model(nodes, [value("x", ["n", 4])], outputs, {"turns": np.array(3, dtype=I64)})
    program = agree(made)
    assert numbers_for(program, {"n": 2})["last.0"] == 2 + 3 * 2
    assert [str(program.types[name]) for name in ("last", "all")] == ["float32[last.0, 4]", "float32[3]"]


def test_a_loop_with_an_open_number_of_turns_needs_a_number(tmp_path: Path) -> None:
    body = onnx.helper.make_graph(
        [node("Identity", "go", "on"), node("Identity", "h", "next"), node("ReduceSum", "next", "seen", keepdims=0)],
        "body", [value("turn", [], "int64"), value("go", [], "bool"), value("h", [4])],
        [value("on", [], "bool"), value("next", [4]), value("seen", [])],
    )  # fmt: skip
    made = model([node("Loop", "turns _ x", "last all", body=body)], [value("x", [4]), value("turns", [], "int64")],
                 [value("last", [4]), value("all", ["t"])])  # fmt: skip
    program = capture_model(made).program
    with pytest.raises(TargetError, match=r"all\.0"):
        numbers_for(program, {})
    assert numbers_for(program, {"all.0": 5})["all.0"] == 5


def test_branches_of_other_sizes_take_the_larger(tmp_path: Path) -> None:
    yes = onnx.helper.make_graph([node("Concat", "x x", "a", axis=0)], "yes", [], [value("a", None)])
    no = onnx.helper.make_graph([node("Relu", "x", "b")], "no", [], [value("b", None)])
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=9)]
    made = model([*nodes, node("If", "c", "y", then_branch=yes, else_branch=no)],
                 [value("x", ["n", 4])], [value("y", ["k", 4])])  # fmt: skip
    program = agree(made)
    assert numbers_for(program, {"n": 5})["y.0"] == 10


def test_a_scan_collects_one_slice_a_turn(tmp_path: Path) -> None:
    body = onnx.helper.make_graph(
        [node("Add", "h e", "next"), node("MatMul", "next w", "o")], "body", [value("h", ["b", 4]), value("e", ["b", 4])],
        [value("next", ["b", 4]), value("o", ["b", 2])],
    )  # fmt: skip
    made = model([node("Scan", "x0 x", "last all", body=body, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1])],
                 [value("x0", ["b", 4]), value("x", ["b", "t", 4])], [value("last", ["b", 4]), value("all", ["b", "t", 2])],
                 {"w": weights(4, 2)})  # fmt: skip
    assert str(agree(made).types["all"]) == "float32[b, t, 2]"


@pytest.mark.parametrize(
    ("nodes", "constants", "expected"),
    [
        ([node("NonZero", "x", "y")], {}, "int64[2, y.1]"),
        ([node("Range", "z k o", "y")], {"z": np.array(0), "k": np.array(7), "o": np.array(2)}, "int64[4]"),
        ([node("Shape", "x", "s"), node("ConstantOfShape", "s", "y")], {}, "float32[n, 6]"),
        ([node("Tile", "x r", "y")], {"r": np.array([2, 3])}, "float32[2*n, 18]"),
        ([node("Slice", "x a b c d", "y")],
         {"a": np.array([-1]), "b": np.array([-(2**40)]), "c": np.array([0]), "d": np.array([-2])}, "float32[(n + 1)//2, 6]"),
        ([node("Slice", "x a b c", "y")], {"a": np.array([1]), "b": np.array([4]), "c": np.array([1])}, "float32[n, 3]"),
        ([node("Pad", "x p", "y")], {"p": np.array([1, 0, 2, 0])}, "float32[n + 3, 6]"),
        ([node("TopK", "x k", "y i")], {"k": np.array([2])}, "float32[n, 2]"),
        ([node("Split", "x", "y q", axis=1, num_outputs=2)], {}, "float32[n, 3]"),
        ([node("Unique", "x", "y", sorted=1)], {}, "float32[y.0]"),
        ([node("Einsum", "x x", "y", equation="ij,kj->ik")], {}, "float32[n, n]"),
        ([node("Reshape", "x s", "y")], {"s": np.array([-1, 3])}, "float32[2*n, 3]"),
        ([node("Flatten", "x", "y", axis=0)], {}, "float32[1, 6*n]"),
        ([node("CumSum", "x a", "y")], {"a": np.array(0)}, "float32[n, 6]"),
        ([node("OneHot", "h d v", "y"), node("Cast", "x", "z", to=7)],
         {"h": np.array([0, 2]), "d": np.array(5), "v": np.zeros(2, "f4")}, "float32[2, 5]"),
    ],
)  # fmt: skip
def test_operators_whose_sizes_are_expressions(nodes: list[Any], constants: dict[str, Any], expected: str) -> None:
    made = model(nodes, [value("x", ["n", 6])], [onnx.ValueInfoProto(name="y")], constants)
    assert str(agree(made).types["y"]) == expected


def test_convolution_and_pooling_over_open_sizes(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a", strides=[2, 2], pads=[1, 1, 1, 1]), node("MaxPool", "a", "b", kernel_shape=[2, 2]),
        node("GlobalAveragePool", "b", "y"),
    ]  # fmt: skip
    made = model(nodes, [value("x", ["n", 3, "h", "w"])], [value("y", ["n", 5, 1, 1])], {"w": weights(5, 3, 3, 3)})
    made.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "wide"
    assert str(agree(made, size=9).types["a"]) == "float32[n, 5, (h - 1)//2 + 1, (wide - 1)//2 + 1]"


def test_what_a_round_trip_writes_is_the_same_program(tmp_path: Path) -> None:
    from memfit.ir.program import text_of

    for path in of_family("simple"):
        found = capture(path)
        write_model(found.program, found.weights, tmp_path / "again.onnx")
        assert text_of(capture(tmp_path / "again.onnx").program) == text_of(found.program), path


def test_weights_beside_the_model_stay_usable(tmp_path: Path) -> None:
    made = model([node("MatMul", "x w", "y")], [value("x", ["n", 64])], [value("y", ["n", 64])], {"w": weights(64, 64)})
    path = tmp_path / "model.onnx"
    onnx.save(made, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = optimizing.smaller(path)
    _, compared = optimizing.write_checked(found, path, tmp_path / "new.onnx", {}, verify=True)
    assert compared is not None
    assert compared.equal
    assert (tmp_path / "new.onnx").stat().st_size > 64 * 64 * 4  # whole: nothing beside it any more
