"""The terminal summaries, as a person meets them: 80 columns, no colours."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_reports import made_up_alive, made_up_fit, made_up_memory, made_up_profile
from rich.console import Console

from memfit.report.summary import AliveTensor, Moment, Peak, StepFigures
from memfit.report.terminal import draw_memory, headline
from memfit.report.terminal_fit import draw_fit, fit_headline
from memfit.report.words import place

GOLDEN = Path(__file__).parent.parent / "golden" / "report"


def drawn(
    draw: Callable[..., None], report: Any, width: int = 80, encoding: str = "utf-8", written: tuple[str, ...] = ()
) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", write_through=True)
    draw(Console(file=file, width=width, color_system=None, force_terminal=False, highlight=False), report, written)
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


GOLDENS = {
    "predict": lambda: drawn(draw_memory, made_up_memory(), written=("gpt2.html",)),
    "profile": lambda: drawn(draw_memory, made_up_profile()),
    "fit": lambda: drawn(draw_fit, made_up_fit()),
    "fit_not_verified": lambda: drawn(
        draw_fit,
        made_up_fit(
            verified={}, exact=False, overhead=None, recipe=None, levers=(), baseline=StepFigures(1000, None, None),
            fitted=StepFigures(900, None, None), notes=("nothing was run",), lower_bound=0, budget=950,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str) -> None:
    """Run with UPDATE_GOLDEN=1 to write the texts anew, then read the difference."""
    text, path = GOLDENS[name](), GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 132])
@pytest.mark.parametrize(("draw", "report"), [(draw_memory, made_up_profile), (draw_fit, made_up_fit)])
def test_no_line_is_wider_than_the_terminal(draw: Callable[..., None], report: Callable[[], Any], width: int) -> None:
    assert max(map(len, drawn(draw, report(), width=width).splitlines())) <= width


def test_long_names_are_cut_from_the_left_and_stay_in_their_line() -> None:
    name = "model.decoder." + "block." * 60 + "weight"
    alive = tuple(
        AliveTensor(4, "parameters", (1,) * 30, "torch.float32", name, "", "/x/" + "y" * 200 + ".py:3", "op")
        for _ in range(2)
    )
    text = drawn(draw_memory, made_up_memory(alive=alive))
    row = next(line for line in text.splitlines() if "parameter " in line)
    assert len(row) <= 80
    assert "weight " in row
    assert row.endswith(".py:3")


def test_square_brackets_of_a_name_are_no_markup() -> None:
    assert "[not markup]" in drawn(draw_memory, made_up_memory(alive=made_up_alive(5)), width=132)
    assert "[bold]x" in drawn(draw_memory, made_up_memory(notes=("[bold]x",)))


def test_a_terminal_without_unicode_gets_bars_of_its_own() -> None:
    text = drawn(draw_memory, made_up_memory(), encoding="ascii")
    assert "####" in text
    assert "?" not in text.split("Largest")[0]


def test_empty_states() -> None:
    nothing = made_up_memory(
        peak=Peak(0, 0, 0, 0),
        categories={},
        alive=(),
        timeline=None,
        at=Moment(0, "", "", ""),
        fits=None,
        capacity=None,
    )
    assert headline(nothing) == "Peak live 0 B projected, at an unknown place"
    text = drawn(draw_memory, nothing)
    assert "no tensor was alive" in text
    assert "Largest tensors" not in text
    assert "none was needed" in drawn(draw_fit, made_up_fit(levers=()))


def test_headline_says_whether_it_fits() -> None:
    assert headline(made_up_memory()).endswith("fits in 2 GiB: yes")
    assert headline(made_up_memory(fits=False)).endswith("fits in 2 GiB: NO")
    assert headline(made_up_memory(fits=False, capacity=None, device="h100")).endswith("fits on h100: NO")
    assert "fits" not in headline(made_up_memory(fits=None))


def test_place_leaves_out_what_is_not_known() -> None:
    assert place(Moment(0, "aten.mm.default", "", "", "")) == "mm"
    assert place(Moment(0, "", "", "a/b.py:3", "forward")) == "forward (b.py:3)"


def test_fit_headline_says_no_when_the_budget_is_not_kept() -> None:
    assert fit_headline(made_up_fit(feasible=False)).startswith("Does NOT fit 512 MiB")
    assert "431 MiB" in drawn(draw_fit, made_up_fit(feasible=False))


def test_a_failed_check_is_said_in_capitals() -> None:
    checks = {
        "loss": {"ok": False, "compared": 3, "differs": "step 1"},
        "within_budget": False,
        "largest relative error": 1e-3,
    }
    text = drawn(draw_fit, made_up_fit(verified=checks, exact=False))
    assert "NO  loss differs in step 1 (3 compared)" in text
    assert "NO  within budget" in text
    assert "    largest relative error: 0.001" in text
    assert "not bit-identical" in text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"setting": "batch", "value": 38, "peak": 2**31, "confirmed": True}, "batch that fits: 38 (peak 2.00"),
        ({"setting": "length", "value": 0, "peak": 2**31, "confirmed": True}, "length that fits: none, not even 1"),
        ({"setting": "length", "value": 9, "peak": 1024, "confirmed": False}, "length that fits: 9 (peak 1.00"),
    ],
)  # fmt: skip
def test_the_largest_batch_is_one_sentence(found: dict[str, Any], text: str) -> None:
    assert f"Largest {text}" in drawn(draw_memory, made_up_memory(largest_batch=found))


def test_tensors_that_differ_in_nothing_share_a_line() -> None:
    text = drawn(draw_memory, made_up_memory(alive=made_up_alive(5) + made_up_alive(3) * 2))
    assert "3 x lm_head" in text
    assert text.count("lm_head") == 1


@pytest.mark.parametrize(
    ("growing", "text"), [(True, "GROWS: +1.00 KiB kept"), (False, "Steady: +1.00 KiB kept"), (None, None)]
)
def test_growth_is_said_only_where_it_is_known(growing: bool | None, text: str | None) -> None:
    summary = drawn(draw_memory, made_up_memory(extra={"growth": {"bytes_per_step": 1024, "growing": growing}}))
    assert (text or "Largest tensors") in summary
    assert ("kept from step to step" in summary) is (text is not None)
