"""A plan file checks itself: what was cut off, edited or made up is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from memfit.errors import OutputError, TraceError
from memfit.planners.plan_file import Plan, _digest, is_plan, load_plan, memory_peaks, plan_of, plan_text, save_plan
from memfit.planners.portfolio import plan_problem
from memfit.planners.problem import Memory, Piece, Problem, simple_problem
from memfit.testing.problems import problems


def made() -> Plan:
    """Three buffers with all that a plan can hold."""
    problem = replace(
        simple_problem([0, 2, 1], [4, 5, 3], [64, 32, 16], ids=("a", "b", "c"), alignment=16),
        pieces={0: (Piece(0, 1, 0, 64), Piece(3, 4, 8, 16))}, in_place=((0, 1),), labels=("weights", "", "x"),
        expected=np.array([60, 32, 16]), offset=np.array([-1, 64, -1]), memories=(Memory("sram", 4096),),
    )  # fmt: skip
    return Plan(problem, plan_problem(problem).best)


def edited(change: Any, *, sign: bool = True) -> Any:
    """The data of ``made``'s file after ``change``, with a digest that matches if ``sign``."""
    data = json.loads(plan_text(made().problem, made().placement))
    change(data)
    if sign:
        data["digest"] = _digest({k: v for k, v in data.items() if k not in ("format", "version", "digest")})
    return data


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    plan = made()
    save_plan(tmp_path / "p.json", plan.problem, plan.placement)
    back = load_plan(tmp_path / "p.json")
    for name in ("ids", "pieces", "same", "in_place", "memories", "labels"):
        assert getattr(back.problem, name) == getattr(plan.problem, name)
    for name in ("lower", "upper", "size", "alignment", "offset", "memory", "expected"):
        assert getattr(back.problem, name).tolist() == getattr(plan.problem, name).tolist()
    assert back.placement.offset.tolist() == plan.placement.offset.tolist()
    assert (back.placement.peak, back.placement.bound) == (plan.placement.peak, plan.placement.bound)


@settings(max_examples=40, deadline=None)
@given(problems(memories=2))
def test_every_plan_is_taken_back(problem: Problem) -> None:
    result = plan_problem(problem, time_limit=0.05)
    if result.fits is False or (result.fits is None and any(m.capacity is not None for m in problem.memories)):
        return
    plan = plan_of(json.loads(plan_text(problem, result.best)), "p")
    assert plan.placement.offset.tolist() == result.best.offset.tolist()
    assert sum(memory_peaks(plan.problem, plan.placement)) == result.best.peak


def test_a_file_that_was_cut_off_or_edited_is_refused(tmp_path: Path) -> None:
    text = plan_text(made().problem, made().placement)
    for end in range(0, len(text), 7):
        (tmp_path / "p.json").write_text(text[:end])
        with pytest.raises(TraceError, match="it is no JSON"):
            load_plan(tmp_path / "p.json")
    with pytest.raises(TraceError, match="its digest does not match"):
        plan_of(edited(lambda data: data["buffers"]["offset"].__setitem__(0, 4096), sign=False), "p")


def overlap(data: Any) -> None:
    data["buffers"]["offset"] = [64, 64, 64]


def shift(data: Any) -> None:
    data["buffers"]["offset"] = [8, 64, 8]


BREACHES = [
    (overlap, "its placement is not valid: .* share bytes"),
    (shift, "its placement is not valid: .* is not aligned"),
    (lambda data: data.update(peak=1), "the stated peak is 1"),
    (lambda data: data["memories"][0].update(capacity=8), "what it placed is no problem: .* does not fit"),
    (lambda data: data["buffers"].pop("size"), "a field of the plan"),
    (lambda data: data["buffers"].update(size=[1, 2]), "size has 2 entries for 3 buffers"),
    (lambda data: data["buffers"].update(size=[-64, 32, 16]), "its size is -64 bytes"),
    (lambda data: data["buffers"].update(size=[10**30, 32, 16]), "a field of the plan"),
    (lambda data: data["buffers"].update(size="many"), "a field of the plan"),
    (lambda data: data.update(buffers=[]), "a field of the plan"),
    (lambda data: data.update(pieces={"x": [[0]]}), "a field of the plan"),
    (lambda data: data.update(pieces={"7": [[0, 1, 0, 8]]}), "pieces of buffer number 7"),
    (lambda data: data.update(in_place=[[0, 9]]), "names a buffer that there is not"),
    (lambda data: data.update(version=99), "of version 99, this memfit reads 1"),
    (lambda data: data.update(format="x"), "it is no plan of memfit"),
]


@pytest.mark.parametrize(("change", "text"), BREACHES, ids=range(len(BREACHES)))
def test_what_is_signed_is_still_checked(change: Any, text: str) -> None:
    with pytest.raises(TraceError, match=text):
        plan_of(edited(change), "p")


def test_other_data_is_no_plan(tmp_path: Path) -> None:
    assert not is_plan([]) and not is_plan({}) and is_plan({"format": "memfit plan"})  # noqa: PT018
    with pytest.raises(TraceError, match="No such file"):
        load_plan(tmp_path / "none.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(TraceError, match="no JSON"):
        load_plan(tmp_path / "deep.json")
    with pytest.raises(OutputError):
        save_plan(tmp_path / "no" / "p.json", made().problem, made().placement)
