"""Each rewrite of ONNX operators on weights that show a mistake: fewer operations, equal outputs, open axes still open."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_programs import model, node, onnx, saved, value, weights

from memfit.frameworks.onnx import optimizing
from memfit.frameworks.onnx.running import compare
from memfit.frameworks.onnx.writing import write_model
from memfit.ir.program import programs
from memfit.passes.exact import SLACK, totals

pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

I64 = np.int64


def optimised(made: Any, folder: Path, tolerance: float = 2e-6) -> Counter[str]:
    """Operators of the optimised model, after it was checked and run beside the original."""
    path, new = saved(made, folder), folder / "new.onnx"
    found = optimizing.smaller(path)
    write_model(found.optimized.program, found.captured.weights, new)
    onnx.checker.check_model(str(new))
    compared = compare(found.captured.program, (str(path), str(new)), {})
    assert compared.max_error <= tolerance
    before, after = found.captured.program, found.optimized.program
    assert all(a <= b + SLACK for a, b in zip(totals(after, {}), totals(before, {}), strict=True))
    written = onnx.load(str(new))
    assert [str(o) for o in written.graph.input] == [str(i) for i in made.graph.input]
    assert [str(o) for o in written.graph.output] == [str(o) for o in made.graph.output]
    return Counter(o.kind.removeprefix("onnx.") for p in programs(after) for o in p.operations)


IMAGE, BATCHED = value("x", ["n", 3, 8, 8]), ["b", "s", 8]


def norm(name: str, channels: int = 5) -> dict[str, Any]:
    return {
        f"{name}s": weights(channels, seed=1), f"{name}b": weights(channels, seed=2), f"{name}m": weights(channels, seed=3),
        f"{name}v": np.abs(weights(channels, seed=4)) + 0.1,
    }  # fmt: skip


def test_batch_normalisation_scale_shift_and_padding_go_into_the_convolution(tmp_path: Path) -> None:
    nodes = [
        node("Pad", "x pads", "p"), node("Conv", "p w c", "a", strides=[2, 2]),
        node("BatchNormalization", "a Ns Nb Nm Nv", "d", epsilon=1e-3), node("Mul", "d k", "e"), node("Add", "e h", "f"),
        node("Div", "f two", "g"), node("Relu", "g", "y"),
    ]  # fmt: skip
    constants = {
        "pads": np.array([0, 0, 1, 0, 0, 0, 1, 2], dtype=I64), "w": weights(5, 3, 3, 3), "c": weights(5), **norm("N"),
        "k": weights(5, 1, 1, seed=7), "h": weights(1, 5, 1, 1, seed=8), "two": np.array(2.0, dtype=np.float32),
    }  # fmt: skip
    made = model(nodes, [IMAGE], [value("y", ["n", 5, "h", "w"])], constants)
    assert optimised(made, tmp_path, 1e-5) == {"Conv": 1, "Relu": 1}


def test_a_convolution_that_two_read_keeps_its_values(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a"), node("BatchNormalization", "a Ns Nb Nm Nv", "d"), node("Relu", "a", "r"),
        node("Add", "d r", "y"),
    ]  # fmt: skip
    made = model(nodes, [IMAGE], [value("y", ["n", 5, 6, 6])], {"w": weights(5, 3, 3, 3), **norm("N")})
    assert optimised(made, tmp_path)["BatchNormalization"] == 1


@pytest.mark.parametrize(
    "product",
    [node("MatMul", "x w", "a"), node("Gemm", "x w c", "a"), node("Gemm", "x u c", "a", transB=1)],
    ids=["product", "with bias", "turned"],
)
def test_normalisation_goes_into_a_product_of_matrices(tmp_path: Path, product: Any) -> None:
    nodes = [product, node("BatchNormalization", "a Ns Nb Nm Nv", "d"), node("Relu", "d", "y")]
    given = {"w": weights(8, 5), "u": weights(5, 8), "c": weights(5), **norm("N")}
    constants = {name: array for name, array in given.items() if any(name in n.input for n in nodes)}
    made = model(nodes, [value("x", ["n", 8])], [value("y", ["n", 5])], constants)
    assert optimised(made, tmp_path, 1e-5) == {"Gemm": 1, "Relu": 1}


def test_a_product_with_a_factor_keeps_its_normalisation(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w c", "a", alpha=0.5), node("BatchNormalization", "a Ns Nb Nm Nv", "y")]
    constants = {"w": weights(8, 5), "c": weights(5), **norm("N")}
    made = model(nodes, [value("x", ["n", 8])], [value("y", ["n", 5])], constants)
    assert optimised(made, tmp_path)["BatchNormalization"] == 1


def test_a_weight_that_two_convolutions_share_is_not_held_twice(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a"), node("BatchNormalization", "a Ns Nb Nm Nv", "d"), node("Conv", "d k", "e"),
        node("BatchNormalization", "e Ms Mb Mm Mv", "y"), node("Conv", "x w", "g", strides=[2, 2]),
        node("BatchNormalization", "g Ms Mb Mm Mv", "z"),
    ]  # fmt: skip
    constants = {"w": weights(16, 3, 3, 3), "k": weights(16, 16, 3, 3), **norm("N", 16), **norm("M", 16)}
    outputs = [value("y", ["n", 16, 4, 4]), value("z", ["n", 16, 3, 3])]
    made = model(nodes, [IMAGE], outputs, constants)
    assert optimised(made, tmp_path, 1e-5) == {"Conv": 3, "BatchNormalization": 2}


def test_a_weight_whose_shape_alone_is_read_as_well_is_not_shared(tmp_path: Path) -> None:
    """As torch exports a convolution without a bias: zeros, as many as the weight has rows."""
    nodes = [
        node("Shape", "w", "s"), node("Gather", "s first", "n"), node("Expand", "zero n", "c"), node("Conv", "x w c", "a"),
        node("BatchNormalization", "a Ns Nb Nm Nv", "d"), node("Relu", "d", "y"),
    ]  # fmt: skip
    constants = {
        "w": weights(16, 3, 3, 3), "first": np.array([0], dtype=I64), "zero": np.array(0, dtype=np.float32),
        **norm("N", 16),
    }  # fmt: skip
    made = model(nodes, [IMAGE], [value("y", ["n", 16, 6, 6])], constants)
    assert optimised(made, tmp_path, 1e-5) == {"Conv": 1, "Relu": 1}


def test_a_pad_that_is_not_zero_or_pads_channels_stays(tmp_path: Path) -> None:
    nodes = [node("Pad", "x pads one", "p"), node("Conv", "p w", "y")]
    constants = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=I64),
        "one": np.array(1, dtype=np.float32),
        "w": weights(5, 3, 3, 3),
    }
    made = model(nodes, [IMAGE], [value("y", ["n", 5, 8, 8])], constants)
    assert optimised(made, tmp_path) == {"Pad": 1, "Conv": 1}


def test_scale_and_shift_after_a_normalisation_of_its_own(tmp_path: Path) -> None:
    nodes = [node("BatchNormalization", "x Ns Nb Nm Nv", "a"), node("Mul", "a k", "b"), node("Sub", "b k", "y")]
    made = model(nodes, [IMAGE], [value("y", ["n", 3, 8, 8])], {**norm("N", 3), "k": weights(3, 1, 1, seed=9)})
    assert optimised(made, tmp_path, 1e-5) == {"BatchNormalization": 1}


def test_scores_scaled_by_one_number_scale_the_weight_past_views(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "a"), node("Add", "a c", "b"), node("Reshape", "b s", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3]), node("Mul", "t k", "y"),
    ]  # fmt: skip
    constants = {
        "w": weights(8, 8), "c": weights(8), "s": np.array([0, 0, 2, 4], dtype=I64), "k": np.array(0.3, dtype=np.float32),
    }  # fmt: skip
    made = model(nodes, [value("x", BATCHED)], [value("y", ["b", 2, "s", 4])], constants)
    assert optimised(made, tmp_path) == {"MatMul": 1, "Add": 1, "Reshape": 1, "Transpose": 1}


def test_a_weight_that_two_read_is_not_scaled(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Mul", "a k", "b"),
        node("MatMul", "x w", "c"),
        node("Relu", "c", "d"),
        node("Add", "b d", "y"),
    ]
    constants = {"w": weights(8, 8), "k": np.array(0.3, dtype=np.float32)}
    made = model(nodes, [value("x", BATCHED)], [value("y", BATCHED)], constants)
    assert optimised(made, tmp_path) == {"MatMul": 1, "Mul": 1, "Relu": 1, "Add": 1}


def test_two_matrices_and_a_vector_are_a_gemm(tmp_path: Path) -> None:
    made = model([node("MatMul", "x w", "a"), node("Add", "c a", "y")], [value("x", ["n", 8])], [value("y", ["n", 4])],
                 {"w": weights(8, 4), "c": weights(4)})  # fmt: skip
    assert optimised(made, tmp_path) == {"Gemm": 1}


def test_the_shape_arithmetic_of_a_reshape_goes(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", "sh"), node("Gather", "sh zero", "b"), node("Gather", "sh one", "s"),
        node("Unsqueeze", "b ax", "b1"),
        node("Unsqueeze", "s ax", "s1"), node("Concat", "b1 s1 tail", "target", axis=0), node("Reshape", "x target", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3]), node("Shape", "t", "st"), node("Gather", "st two", "s2"),
        node("Unsqueeze", "s2 ax", "s3"), node("Concat", "minus s3 four", "back", axis=0), node("Reshape", "t back", "y"),
    ]  # fmt: skip
    constants = {
        "zero": np.array(0, dtype=I64), "one": np.array(1, dtype=I64), "two": np.array(2, dtype=I64),
        "ax": np.array([0], dtype=I64),
        "tail": np.array([2, 4], dtype=I64), "minus": np.array([-1], dtype=I64), "four": np.array([4], dtype=I64),
    }  # fmt: skip
    made = model(nodes, [value("x", BATCHED)], [value("y", ["m", "s", 4])], constants)
    found = optimised(made, tmp_path)
    assert found["Transpose"] == 1
    assert found["Reshape"] == 2
    assert sum(found.values()) <= 7  # [-1, seq, 4] has two open sizes: one of them must be computed


def test_transposes_meet_and_reshapes_around_them_go(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[0, 2, 1, 3]), node("Reshape", "a m", "b"),
        node("Transpose", "b", "c", perm=[0, 2, 1]),
        node("Reshape", "c o", "d"), node("Relu", "d", "y"),
    ]  # fmt: skip
    constants = {"m": np.array([-1, 5, 4], dtype=I64), "o": np.array([-1, 2, 4, 5], dtype=I64)}
    made = model(nodes, [value("x", ["b", 5, 2, 4])], [value("y", ["b", 2, 4, 5])], constants)
    assert optimised(made, tmp_path) == {"Transpose": 1, "Relu": 1}


def test_a_tied_weight_is_held_once_and_multiplied_as_it_lies(tmp_path: Path) -> None:
    nodes = [
        node("Gather", "w ids", "e"), node("Relu", "e", "h"), node("Transpose", "w", "t", perm=[1, 0]),
        node("MatMul", "h t", "y"),
    ]  # fmt: skip
    made = model(nodes, [value("ids", ["b", "s"], "int64")], [value("y", ["b", "s", 50])], {"w": weights(50, 8)})
    assert optimised(made, tmp_path) == {"Gather": 1, "Relu": 1, "com.microsoft:FusedMatMul": 1}
    written = onnx.load(str(tmp_path / "new.onnx"))
    assert [f.name for f in written.functions] == ["FusedMatMul"]
    ids = np.array([[1, 2, 3]])
    from onnx.reference import ReferenceEvaluator  # a runtime without that kernel: the function inside serves it

    expected = ReferenceEvaluator(made).run(None, {"ids": ids})[0]
    np.testing.assert_allclose(ReferenceEvaluator(written).run(None, {"ids": ids})[0], expected, rtol=1e-5)
    again = optimizing.smaller(tmp_path / "new.onnx")
    assert again.captured.program.node_count == 3  # capture keeps the kernel as one operation


def test_a_tied_weight_under_a_matrix_is_a_gemm(tmp_path: Path) -> None:
    nodes = [node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "x w", "h"), node("MatMul", "h t", "y")]
    made = model(nodes, [value("x", ["n", 90])], [value("y", ["n", 90])], {"w": weights(90, 5)})
    assert optimised(made, tmp_path) == {"MatMul": 1, "Gemm": 1}


@pytest.mark.parametrize("swapped", [False, True])
def test_gelu_written_out(tmp_path: Path, swapped: bool) -> None:
    constants = {
        "r": np.array(np.sqrt(2), dtype=np.float32),
        "one": np.array(1, dtype=np.float32),
        "h": np.array(0.5, dtype=np.float32),
    }
    nodes = [node("Div", "x r", "a"), node("Erf", "a", "b"), node("Add", "one b" if swapped else "b one", "c")]
    nodes += (
        [node("Mul", "x h", "d"), node("Mul", "d c", "y")]
        if swapped
        else [node("Mul", "c x", "d"), node("Mul", "d h", "y")]
    )
    made = model(nodes, [value("x", BATCHED)], [value("y", BATCHED)], constants)
    assert optimised(made, tmp_path) == {"Gelu": 1}
    made.opset_import[0].version = 17  # Gelu came with 20
    assert "Gelu" not in optimised(made, tmp_path)


def test_the_tanh_form_of_gelu_written_out(tmp_path: Path) -> None:
    constants = {
        "three": np.array(3, dtype=np.float32), "k": np.array(0.044715, dtype=np.float32), "one": np.array(1, dtype=np.float32),
        "q": np.array(np.sqrt(2 / np.pi), dtype=np.float32), "h": np.array(0.5, dtype=np.float32),
    }  # fmt: skip
    nodes = [
        node("Pow", "x three", "a"), node("Mul", "a k", "b"), node("Add", "x b", "c"), node("Mul", "c q", "d"),
        node("Tanh", "d", "e"),
        node("Add", "e one", "f"), node("Mul", "x h", "g"), node("Mul", "g f", "y"),
    ]  # fmt: skip
    made = model(nodes, [value("x", BATCHED)], [value("y", BATCHED)], constants)
    assert optimised(made, tmp_path) == {"Gelu": 1}


def test_what_only_looks_like_gelu_stays(tmp_path: Path) -> None:
    constants = {
        "r": np.array(1.5, dtype=np.float32),
        "one": np.array(1, dtype=np.float32),
        "h": np.array(0.5, dtype=np.float32),
    }
    nodes = [
        node("Div", "x r", "a"),
        node("Erf", "a", "b"),
        node("Add", "b one", "c"),
        node("Mul", "c x", "d"),
        node("Mul", "d h", "y"),
    ]
    assert "Gelu" not in optimised(model(nodes, [value("x", BATCHED)], [value("y", BATCHED)], constants), tmp_path)


def test_root_mean_square_without_the_squares(tmp_path: Path) -> None:
    constants = {
        "two": np.array(2, dtype=np.float32), "ax": np.array([-1], dtype=I64),
        "e": np.array(1e-3, dtype=np.float32), "w": weights(8),
    }  # fmt: skip
    nodes = [
        node("Pow", "x two", "a"), node("ReduceMean", "a ax", "b", keepdims=1), node("Add", "b e", "c"), node("Sqrt", "c", "d"),
        node("Reciprocal", "d", "f"), node("Mul", "x f", "g"), node("Mul", "w g", "y"),
    ]  # fmt: skip
    made = model(nodes, [value("x", BATCHED)], [value("y", BATCHED)], constants)
    assert optimised(made, tmp_path) == {"ReduceSumSquare": 1, "Add": 1, "Sqrt": 1, "Div": 1, "Mul": 1}


def test_slices_that_part_an_axis_are_one_split_and_others_stay(tmp_path: Path) -> None:
    constants = {
        "z": np.array([0], dtype=I64),
        "h": np.array([4], dtype=I64),
        "e": np.array([2**63 - 1], dtype=I64),
        "a": np.array([2], dtype=I64),
    }
    nodes = [
        node("Slice", "x z h a", "l"),
        node("Slice", "x h e a", "r"),
        node("Neg", "r", "n"),
        node("Concat", "n l", "y", axis=-1),
    ]
    made = model(nodes, [value("x", BATCHED)], [value("y", BATCHED)], constants)
    assert optimised(made, tmp_path) == {"Split": 1, "Neg": 1, "Concat": 1}
    constants["h"] = np.array([3], dtype=I64)
    nodes[0] = node("Slice", "x h e a", "l")
    made = model(nodes, [value("x", BATCHED)], [value("y", ["b", "s", 10])], constants)
    assert "Split" not in optimised(made, tmp_path)


def test_a_list_taken_apart_at_once_is_a_split(tmp_path: Path) -> None:
    constants = {"n": np.array(3, dtype=I64), "i": np.array(0, dtype=I64), "k": np.array(-1, dtype=I64)}
    nodes = [
        node("SplitToSequence", "x n", "q", axis=2),
        node("SequenceAt", "q i", "a"),
        node("SequenceAt", "q k", "c"),
        node("Concat", "c a", "y", axis=2),
    ]
    made = model(nodes, [value("x", BATCHED)], [value("y", ["b", "s", 5])], constants)
    assert optimised(made, tmp_path) == {"Split": 1, "Concat": 1}


def test_an_expansion_in_front_of_what_broadcasts_goes_and_one_that_widens_stays(tmp_path: Path) -> None:
    nodes = [node("Shape", "x", "s"), node("Expand", "m s", "w"), node("Add", "x w", "y")]
    made = model(nodes, [value("x", BATCHED), value("m", ["s", 8])], [value("y", BATCHED)])
    assert optimised(made, tmp_path) == {"Add": 1}
    nodes = [node("Shape", "x", "s"), node("Expand", "m s", "w"), node("Add", "k w", "y")]
    made = model(nodes, [value("x", BATCHED), value("m", ["s", 8])], [value("y", BATCHED)], {"k": weights(8)})
    assert optimised(made, tmp_path)["Expand"] == 1


def test_bodies_of_branches_and_loops_are_optimised_and_still_right(tmp_path: Path) -> None:
    one = onnx.numpy_helper.from_array(np.array(1, dtype=np.float32), "one")
    yes = onnx.helper.make_graph(
        [node("Mul", "x one", "p"), node("Relu", "p", "then")], "yes", [], [value("then", BATCHED)], [one]
    )
    no = onnx.helper.make_graph(
        [node("Identity", "x", "i"), node("Neg", "i", "otherwise")], "no", [], [value("otherwise", BATCHED)]
    )
    body = onnx.helper.make_graph(
        [node("Identity", "go", "on"), node("Add", "h zero", "g"), node("Add", "g q", "next"),
        node("Identity", "next", "seen")],
        "body", [value("turn", [], "int64"), value("go", [], "bool"), value("h", BATCHED)],
        [value("on", [], "bool"), value("next", BATCHED), value("seen", BATCHED)],
        [onnx.numpy_helper.from_array(np.zeros(8, dtype=np.float32), "zero")],
    )  # fmt: skip
    nodes = [
        node("ReduceSum", "x", "total", keepdims=0), node("Greater", "total nil", "c"),
        node("If", "c", "q", then_branch=yes, else_branch=no), node("Loop", "turns _ x", "last all", body=body),
        node("Add", "last q", "y"),
    ]  # fmt: skip
    constants = {"nil": np.array(0, dtype=np.float32), "turns": np.array(3, dtype=I64)}
    made = model(nodes, [value("x", BATCHED)], [value("y", BATCHED), value("all", [3, *BATCHED])], constants)
    found = optimised(made, tmp_path)
    assert "Mul" not in found
    assert found["Add"] == 2


def test_names_of_outputs_survive_when_outputs_are_equal_or_inputs_or_constants(tmp_path: Path) -> None:
    nodes = [
        node("Relu", "x", "a"),
        node("Relu", "x", "b"),
        node("Identity", "x", "c"),
        node("Identity", "k", "d"),
        node("Add", "k k", "e"),
    ]
    outputs = [value(name, BATCHED) for name in "abc"] + [value("d", [8]), value("e", [8])]
    optimised(model(nodes, [value("x", BATCHED)], outputs, {"k": weights(8)}), tmp_path)


def test_a_constant_that_callers_may_replace_is_not_folded(tmp_path: Path) -> None:
    made = model(
        [node("Mul", "x k", "y")],
        [value("x", BATCHED), value("k", [8])],
        [value("y", BATCHED)],
        {"k": np.ones(8, dtype=np.float32)},
    )
    assert optimised(made, tmp_path) == {"Mul": 1}


def test_a_weight_that_a_file_holds_turned_as_well_is_held_once(tmp_path: Path) -> None:
    table = weights(90, 40)
    nodes = [node("Gather", "w ids", "e"), node("Relu", "e", "h"), node("MatMul", "h turned", "y")]
    inputs, outputs = [value("ids", ["b", "s"], "int64")], [value("y", ["b", "s", 90])]
    made = model(nodes, inputs, outputs, {"w": table, "turned": table.T.copy()})
    assert optimised(made, tmp_path) == {"Gather": 1, "Relu": 1, "com.microsoft:FusedMatMul": 1}
    assert (tmp_path / "new.onnx").stat().st_size < 1.3 * table.nbytes
    other = table.T.copy()
    other[-1, -1] += 1
    made = model(nodes, inputs, outputs, {"w": table, "turned": other})
    assert optimised(made, tmp_path) == {"Gather": 1, "Relu": 1, "MatMul": 1}


def test_sizes_computed_anew_from_other_tensors_are_computed_once(tmp_path: Path) -> None:
    nodes = []
    for at, source in enumerate(("x", "z")):
        nodes += [
            node("Shape", source, f"s{at}"), node("Gather", f"s{at} one", f"g{at}"), node("Mul", f"g{at} two", f"m{at}"),
            node("Unsqueeze", f"m{at} ax", f"u{at}"), node("Concat", f"tail u{at}", f"t{at}", axis=0),
            node("Reshape", f"{source} t{at}", f"r{at}"),
        ]  # fmt: skip
    nodes += [node("Add", "r0 r1", "y")]
    constants = {"one": np.array(1), "two": np.array(2), "ax": np.array([0]), "tail": np.array([-1])}
    inputs = [value("x", ["b", "s", 8]), value("z", ["b", "s", 8])]
    found = optimised(model(nodes, inputs, [value("y", ["m", "k"])], constants), tmp_path)
    assert found["Concat"] == 1
    assert found["Shape"] == 1
