"""The passes that every front end shares, on programs whose framework is NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from memfit.ir.dimension import symbol
from memfit.ir.program import Constant, Operation, Program, Type
from memfit.ir.verify import verify
from memfit.passes.dead_code import remove_dead_code
from memfit.passes.exact import optimize_program, totals
from memfit.passes.fold import folding, growing
from memfit.passes.identities import remove_identities
from memfit.passes.merge import merge_equal
from memfit.passes.unshare import unshare

B = symbol("batch")


class NumpyBench:
    """A front end of a few operators, evaluated by NumPy."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}
        self.runs = 0

    def keep(self, array: Any) -> Constant:
        array = np.asarray(array)
        reference = f"{array.dtype}{array.shape}{hash(array.tobytes())}"
        self.arrays[reference] = array
        return Constant(Type(str(array.dtype), array.shape), reference)

    def array(self, constant: Constant) -> Any:
        return self.arrays[constant.reference]

    def evaluate(self, program: Program, operations: Sequence[Operation], wanted: Sequence[str]) -> Mapping[str, Any]:
        self.runs += 1
        known = {name: self.array(c) for name, c in program.constants.items()}
        work = {"Transpose": np.transpose, "Add": np.add, "Mul": np.multiply, "Tile": np.tile}
        for operation in operations:
            arguments = [known[name] for name in operation.inputs]
            known[operation.outputs[0]] = work[operation.kind.removeprefix("onnx.")](*arguments)
        return {name: known[name] for name in wanted}


def op(kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> Operation:
    return Operation(f"onnx.{kind}", inputs, (output,), tuple(sorted(attributes.items())))


def small(bench: NumpyBench, operations: Sequence[Operation], constants: Mapping[str, Any], **types: Type) -> Program:
    held = {name: bench.keep(np.asarray(value)) for name, value in constants.items()}
    wide = Type("float32", (B, 4))
    known = {"x": wide, **{name: c.type for name, c in held.items()}}
    known |= {name: types.get(name, wide) for o in operations for name in o.outputs}
    made = Program(("x",), ("y",), tuple(operations), known, held, "small")
    verify(made)
    return made


def kinds(program: Program) -> list[str]:
    return [o.kind.removeprefix("onnx.") for o in program.operations]


def test_what_no_output_needs_goes_and_what_may_do_more_stays() -> None:
    bench = NumpyBench()
    given = small(
        bench, [op("Relu", ("x",), "y"), op("Exp", ("x",), "a"), op("my.domain:Log", ("x",), "b")], {"w": np.ones(4)}
    )
    after = remove_dead_code(given, bench)
    assert kinds(after) == ["Relu", "my.domain:Log"]
    assert not after.constants
    assert remove_dead_code(after, bench) is after


def test_equal_operations_and_equal_constants_are_one_but_random_ones_are_not() -> None:
    bench = NumpyBench()
    ops = [
        op("Add", ("x", "a"), "p"), op("Add", ("b", "x"), "q"), op("RandomUniformLike", ("p",), "r"),
        op("RandomUniformLike", ("q",), "s"), op("Sub", ("r", "s"), "y"),
    ]  # fmt: skip
    after = merge_equal(small(bench, ops, {"a": np.full(4, 2, "f4"), "b": np.full(4, 2, "f4")}), bench)
    assert kinds(after) == ["Add", "RandomUniformLike", "RandomUniformLike", "Sub"]
    assert after.operations[2].inputs == ("p",)
    assert len({c.reference for c in after.constants.values()}) == 1


def test_a_subtraction_does_not_commute() -> None:
    bench = NumpyBench()
    ops = [op("Sub", ("x", "a"), "p"), op("Sub", ("a", "x"), "q"), op("Mul", ("p", "q"), "y")]
    assert len(merge_equal(small(bench, ops, {"a": np.ones(4, "f4")}), bench).operations) == 3


@pytest.mark.parametrize(
    ("operation", "constants", "gone"),
    [
        (op("Add", ("x", "c"), "t"), {"c": np.zeros(4, "f4")}, True),
        (op("Add", ("x", "c"), "t"), {"c": np.array([0, 0, 0, 1], "f4")}, False),
        (op("Mul", ("c", "x"), "t"), {"c": np.ones((), "f4")}, True),
        (op("Sub", ("c", "x"), "t"), {"c": np.zeros(4, "f4")}, False),
        (op("Div", ("x", "c"), "t"), {"c": np.ones(4, "f4")}, True),
        (op("Transpose", ("x",), "t", perm=(0, 1)), {}, True),
        (op("Cast", ("x",), "t", to=1), {}, True),
        (op("Slice", ("x", "c"), "t"), {"c": np.zeros(1, "i8")}, True),
        (op("Concat", ("x",), "t", axis=0), {}, True),
    ],
)
def test_operations_that_change_nothing_go(operation: Operation, constants: dict[str, Any], gone: bool) -> None:
    bench = NumpyBench()
    after = remove_identities(small(bench, [operation, op("Relu", ("t",), "y")], constants), bench)
    assert (kinds(after) == ["Relu"]) == gone


def test_a_slice_that_turns_an_axis_round_is_no_identity() -> None:
    bench = NumpyBench()
    ops = [op("Slice", ("x", "s", "e", "a", "p"), "t"), op("Relu", ("t",), "y")]
    constants = {"s": np.array([-1]), "e": np.array([-9]), "a": np.array([1]), "p": np.array([-1])}
    assert kinds(remove_identities(small(bench, ops, constants), bench)) == ["Slice", "Relu"]


def test_a_chain_of_constants_is_run_once_by_the_framework() -> None:
    bench = NumpyBench()
    square = Type("float32", (4, 4))
    ops = [op("Transpose", ("w",), "a"), op("Add", ("a", "v"), "b"), op("MatMul", ("x", "b"), "y")]
    given = small(
        bench, ops, {"w": np.arange(16, dtype="f4").reshape(4, 4), "v": np.ones((4, 4), "f4")}, a=square, b=square
    )
    after = remove_dead_code(folding(grow=False)(given, bench), bench)
    assert kinds(after) == ["MatMul"]
    assert bench.runs == 1
    np.testing.assert_array_equal(bench.array(after.constants["b"]), np.arange(16).reshape(4, 4).T + 1)


def test_a_fold_that_would_hold_a_weight_twice_waits_for_leave() -> None:
    bench = NumpyBench()
    big = np.zeros((64, 64), "f4")
    wide, square = Type("float32", (B, 64)), Type("float32", (64, 64))
    ops = [op("Transpose", ("w",), "t"), op("MatMul", ("x", "w"), "u"), op("MatMul", ("u", "t"), "y")]
    given = small(bench, ops, {"w": big}, t=square, u=wide, y=wide)
    assert folding(grow=False)(given, bench) is given
    assert growing(given) == ("t",)
    assert kinds(folding(grow=True)(given, bench)) == ["MatMul", "MatMul"]
    alone = small(bench, [ops[0], op("MatMul", ("x", "t"), "y")], {"w": big}, t=square, y=wide)
    assert kinds(folding(grow=False)(alone, bench)) == ["MatMul"]


def test_no_pass_together_raises_constants_plus_peak() -> None:
    bench = NumpyBench()
    square = Type("float32", (64, 64))
    wide = Type("float32", (B, 64))
    ops = [
        op("Transpose", ("w",), "t"), op("MatMul", ("x", "w"), "u"), op("MatMul", ("u", "t"), "v"),
        op("Add", ("v", "z"), "a"), op("Add", ("v", "z"), "b"), op("Mul", ("a", "b"), "y"),
    ]  # fmt: skip
    given = small(
        bench,
        ops,
        {"w": np.ones((64, 64), "f4"), "z": np.zeros(64, "f4")},
        t=square,
        u=wide,
        v=wide,
        a=wide,
        b=wide,
        y=wide,
    )
    done = optimize_program(given, bench)
    assert len(done.program.operations) < len(given.operations)
    assert all(a <= b for a, b in zip(totals(done.program, {}), totals(given, {}), strict=True))


def test_a_cheap_value_held_across_the_peak_is_made_beside_its_readers() -> None:
    wide, mask = Type("float32", (B, 4096)), Type("bool", (B, 1024))
    ops = [
        op("Cast", ("m",), "f", to=1), op("Add", ("x", "f"), "a"), op("Tile", ("a",), "big"), op("ReduceSum", ("big",), "s"),
        op("Add", ("s", "f"), "y"),
    ]  # fmt: skip
    thin = Type("float32", (B, 1024))
    types = {"x": thin, "m": mask, "f": thin, "a": thin, "big": wide, "s": thin, "y": thin}
    given = Program(("x", "m"), ("y",), tuple(ops), types, {}, "small")
    verify(given)
    before = totals(given, {})
    after, parted = unshare(given, {"batch": 64}, lambda p: totals(p, {}), before)
    assert parted == ("f",)
    assert kinds(after).count("Cast") == 2
    assert totals(after, {})[-1] < before[-1]
    verify(after)
