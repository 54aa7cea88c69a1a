"""The JSON keys that other programs rely on stand, and the public names are those that are exported."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from made_up_reports import made_up_fit, made_up_memory, made_up_profile

import memfit
import memfit.errors
from memfit.cli.answer import plain

MEMORY = {
    "peak": {"live", "allocated", "reserved", "resident"},
    "categories": {
        "parameters",
        "gradients",
        "optimizer_state",
        "activations",
        "temporaries",
        "inputs",
        "buffers",
        "outside",
    },
    "at": {"step": int, "op": str, "module": str, "line": str},
    "seconds": float,
}
SIDE = {"projected_peak": int, "measured_peak": int, "step_seconds": float}
FIT = {
    "feasible": bool, "budget": int, "smallest_feasible": int, "baseline": SIDE, "fitted": SIDE, "overhead": float,
    "exact": bool, "levers": [{"name": str, "class": str, "saved": int, "cost_seconds": float}], "plan_seconds": float,
    "recipe": str,
}  # fmt: skip


def check(data: Any, promised: Any, where: str = "") -> None:
    """All promised keys are there, with the promised type; a set promises integer bytes."""
    if isinstance(promised, dict):
        for key, kind in promised.items():
            assert key in data, f"{where}.{key}"
            check(data[key], kind, f"{where}.{key}")
    elif isinstance(promised, set):
        for key in promised:
            assert type(data[key]) is int, f"{where}.{key}"
    elif isinstance(promised, list):
        assert data
        for item in data:
            check(item, promised[0], where)
    else:
        assert type(data) is promised, where


def as_json(report: Any) -> dict[str, Any]:
    return dict(json.loads(json.dumps(plain(report.to_json()))))


@pytest.mark.parametrize("report", [made_up_memory(), made_up_profile()], ids=["predict", "profile"])
def test_predict_and_profile(report: Any) -> None:
    check(as_json(report), MEMORY)


def test_fits_and_largest_batch_are_there_when_asked_for() -> None:
    asked = as_json(made_up_memory(largest_batch={"name": "batch", "value": 48}))
    check(asked, {"fits": bool, "largest_batch": dict})
    unasked = as_json(made_up_memory(fits=None, capacity=None))
    assert not {"fits", "largest_batch"} & set(unasked)


def test_fit() -> None:
    check(as_json(made_up_fit()), FIT)


def test_a_missing_key_is_noticed() -> None:
    data = as_json(made_up_fit())
    del data["baseline"]["measured_peak"]
    with pytest.raises(AssertionError, match="measured_peak"):
        check(data, FIT)


def test_the_public_names_are_those_that_are_exported() -> None:
    assert sorted(memfit.__all__) == list(memfit.__all__)
    assert set(memfit.__all__) == set(memfit._WHERE)
    tree = ast.parse(Path(str(memfit.__file__)).read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == memfit._WHERE
    assert set(memfit.__all__) <= set(dir(memfit))


def test_every_error_is_public_and_every_public_name_resolves() -> None:
    for name, where in memfit._WHERE.items():
        assert getattr(memfit, name) is getattr(importlib.import_module(where), name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = memfit.nonsense


def test_the_error_module_exports_every_error_it_defines() -> None:
    classes = {name: value for name, value in vars(memfit.errors).items() if isinstance(value, type)}
    defined = {name for name, value in classes.items() if issubclass(value, Exception)}
    assert defined == set(memfit.errors.__all__)
