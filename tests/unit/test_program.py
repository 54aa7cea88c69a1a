"""The intermediate form: its rules, its text, and its way down to storages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memfit.analyses.graph_trace import trace_of_graph
from memfit.analyses.liveness import simulate
from memfit.analyses.lowering import lower, numbers_for
from memfit.analyses.timeline import timeline
from memfit.errors import ProgramError, TargetError
from memfit.ir.dimension import symbol
from memfit.ir.ops.table import facts
from memfit.ir.program import Constant, Operation, Program, Type, text_of
from memfit.ir.verify import verify

B = symbol("batch")


def op(kind: str, inputs: tuple[str, ...], outputs: tuple[str, ...], **more: object) -> Operation:
    return Operation(f"onnx.{kind}", inputs, outputs, **more)  # type: ignore[arg-type]


def program(*operations: Operation, outputs: tuple[str, ...] = ("y",), **types: Type) -> Program:
    """Input x, constant w, and float32[batch, 4] for every value that ``types`` leaves out."""
    wide = Type("float32", (B, 4))
    weight = Constant(Type("float32", (4, 4)), "w0")
    names = {name: types.get(name, wide) for o in operations for name in o.outputs}
    return Program(("x",), outputs, operations, {"x": wide, "w": weight.type, **names, **types}, {"w": weight}, "small")


def peak(given: Program, in_place: bool = False, **numbers: int) -> int:
    graph = lower(given, numbers_for(given, numbers), in_place=in_place)
    return simulate(graph, range(len(graph.ops))).peak if graph.ops else graph.base_bytes


def test_the_text_shows_every_operation_with_its_type() -> None:
    text = text_of(program(op("MatMul", ("x", "w"), ("t",)), op("Relu", ("t",), ("y",))))
    assert text == (
        "input x: float32[batch, 4]\nconstant w: float32[4, 4] = 'w0'\n"
        "t: float32[batch, 4] = onnx.MatMul(x, w)\ny: float32[batch, 4] = onnx.Relu(t)\noutput y\n"
    )


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (program(op("Relu", ("t",), ("y",))), "reads 't'"),
        (program(op("Relu", ("x",), ("y",)), op("Relu", ("x",), ("y",))), "exists already"),
        (program(op("Relu", ("x",), ("y",)), outputs=("z",)), "output 'z'"),
        (replace(program(op("Relu", ("x",), ("y",))), types={"x": Type("float32", (B,)),
        "w": Type("float32", (4, 4))}), "without a type"),
        (replace(program(op("Relu", ("x",), ("y",))), inputs=("x", "w")), "both an input and a constant"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named(broken: Program, why: str) -> None:
    with pytest.raises(ProgramError, match=why):
        verify(broken)


def test_a_body_may_read_what_is_around_it_and_nothing_else() -> None:
    body = Program((), ("inner",), (op("Relu", ("x",), ("inner",)),), {"inner": Type("float32", (B, 4))})
    branch = op("If", ("c",), ("y",), bodies=(("then_branch", body),))
    good = replace(program(branch), inputs=("x", "c"))
    good = replace(good, types={**good.types, "c": Type("bool", ())})
    verify(good)
    assert branch.reads == ("c", "x")
    stray = replace(body, operations=(op("Relu", ("nowhere",), ("inner",)),))
    with pytest.raises(ProgramError, match="nowhere"):
        verify(replace(good, operations=(replace(branch, bodies=(("then_branch", stray),)),)))


def test_views_share_a_storage_and_cost_nothing() -> None:
    given = program(op("MatMul", ("x", "w"), ("t",)), op("Reshape", ("t", "s"), ("v",)), op("Relu", ("v",), ("y",)))
    given = replace(given, inputs=("x", "s"), types={**given.types, "s": Type("int64", (2,))})
    graph = lower(given, {"batch": 2})
    assert [o.name for o in graph.ops] == ["onnx.MatMul", "onnx.Relu"]
    assert peak(given, batch=2) == 64 + 32 + 16 + 32 + 32  # w, x, s, t, y


def test_an_operation_in_place_takes_over_what_dies() -> None:
    given = program(op("MatMul", ("x", "w"), ("t",)), op("Relu", ("t",), ("y",)))
    assert peak(given, batch=2) == 64 + 32 + 32 + 32
    assert peak(given, in_place=True, batch=2) == 64 + 32 + 32


def test_an_unknown_operation_holds_its_inputs_for_as_long_as_its_output_lives() -> None:
    known = program(
        op("MatMul", ("x", "w"), ("t",)),
        op("Erf", ("t",), ("u",)),
        op("Exp", ("u",), ("v",)),
        op("Sum", ("v", "u"), ("y",)),
    )
    unknown = replace(
        known, operations=(known.operations[0], op("my.domain:Odd", ("t",), ("u",)), *known.operations[2:])
    )
    assert not facts(unknown.operations[1]).removable
    assert peak(unknown, batch=2) == peak(known, batch=2) + 32


def test_an_operation_with_bodies_holds_what_its_hungriest_body_needs() -> None:
    wide = Type("float32", (B, 4))
    body = Program(
        (), ("inner",), (op("Exp", ("x",), ("a",)), op("Erf", ("x",), ("b",)), op("Sum", ("a", "b"), ("inner",))),
        {"a": wide, "b": wide, "inner": wide},
    )  # fmt: skip
    branch = op("If", ("c",), ("y",), bodies=(("then_branch", body),))
    given = replace(program(branch), inputs=("x", "c"), types={**program(branch).types, "c": Type("bool", ())})
    assert peak(given, batch=2) == 64 + 32 + 1 + 32 + 3 * 32  # w, x, c, y, and a, b, inner at once


def test_a_graph_as_a_trace_has_the_same_peak() -> None:
    given = program(op("MatMul", ("x", "w"), ("t",)), op("Relu", ("t",), ("u",)), op("MatMul", ("u", "w"), ("y",)))
    for in_place in (False, True):
        graph = lower(given, {"batch": 3}, in_place=in_place)
        line = timeline(trace_of_graph(graph))
        assert line.peak == simulate(graph, range(len(graph.ops))).peak
        assert line.categories["inputs"] == 48


def test_open_dimensions_must_be_bound_and_bound_ones_must_exist() -> None:
    given = program(op("Relu", ("x",), ("y",)))
    with pytest.raises(TargetError, match="--bind batch=8"):
        numbers_for(given, {})
    with pytest.raises(TargetError, match="no dimension 'seq'"):
        numbers_for(given, {"batch": 1, "seq": 2})
    assert numbers_for(given, {}, default=5) == {"batch": 5}


def test_a_dimension_that_depends_on_data_takes_its_bound() -> None:
    given = program(op("NonZero", ("x",), ("y",)), y=Type("int64", (2, symbol("y.1"))))
    given = replace(given, meta={"bounds": {"y.1": B * 4}})
    assert numbers_for(given, {"batch": 3}) == {"batch": 3, "y.1": 12}


def test_sizes_past_63_bits_are_refused() -> None:
    given = program(op("Tile", ("x",), ("y",)), y=Type("float32", (B * 2**61, 4)))
    with pytest.raises(TargetError, match=r"more than 2\^63"):
        lower(given, {"batch": 3})
