"""The page of a plan: time x bytes, every buffer a rectangle, the load above; one file, nothing fetched, under 5 MB.

Drawn by ``assets/plan.js`` from one JSON object of columns; names are set as text, never as markup. Where names are long
or buffers many, fewer are drawn one by one until the page keeps its size; the others are merged (``plan_scene``).
"""

from __future__ import annotations

from typing import Any

from memfit.planners.load import Load
from memfit.report.html import MAX_BYTES, framed
from memfit.report.plan_scene import SHOWN, Panel, scene_of
from memfit.report.plan_summary import PlanReport
from memfit.report.terminal_plan import gap_word, optimality, plan_headline
from memfit.report.words import place

_NAME = 60
_TEXT = 300
_ROWS = 200


def plan_page(report: PlanReport) -> str:
    """The page of a plan. Cost: O(buffers log buffers)."""
    shown = SHOWN
    while True:
        page = framed(
            _data(report, shown), styles=("page.css", "plan.css"), scripts=("base.js", "plan.js")
        )  # fmt: skip
        if len(page.encode("utf-8", "replace")) <= MAX_BYTES or shown <= 16:
            return page
        shown //= 2


def _data(report: PlanReport, shown: int) -> dict[str, Any]:
    scene = scene_of(report, shown)
    problem, best = report.problem, report.best
    drawn = sorted({int(b) for panel in scene.panels for b in panel.buffer.tolist()})
    row_of = {buffer: row for row, buffer in enumerate(drawn)}
    labels = {text: index for index, text in enumerate(dict.fromkeys(_label(report, b) for b in drawn))}
    return {
        "verb": "plan",
        "target": report.target[-_TEXT:],
        "headline": plan_headline(report)[:_TEXT],
        "buffers": len(problem),
        "total": int(problem.size.sum()),
        "seconds": report.seconds,
        "peak": int(best.peak),
        "bound": report.bound,
        "bound_reason": report.bound_reason[:_TEXT],
        "optimal": best.optimal,
        "optimality": optimality(report),
        "strategy": best.strategy,
        "capacity": report.capacity,
        "fits": report.fits,
        "infeasible": [name[:_NAME] for name in report.infeasible[:_ROWS]],
        "time": [scene.begin, scene.end],
        "instant": report.instant,
        "at": place(report.at) if report.at is not None else "",
        "shared": len(problem.in_place) + len(problem.same),
        "by_operation": "op_at" in problem.meta,
        "coloured_by": scene.coloured_by,
        "keys": [[key.word, key.light, key.dark] for key in scene.keys],
        "names": [problem.ids[b][:_NAME] for b in drawn],
        "label": [labels[_label(report, b)] for b in drawn],
        "labels": list(labels),
        "sizes": [int(problem.size[b]) for b in drawn],
        "panels": [_panel(panel, row_of) for panel in scene.panels],
        "strategies": [
            [p.strategy, int(p.peak), gap_word(p.gap), p.seconds, p.optimal] for p in report.placements[:_ROWS]
        ],
        "alive": [
            [row.name[:_NAME], row.label[-_TEXT:], row.nbytes, row.category, row.lower, row.upper, row.offset]
            for row in report.alive
        ],
        "notes": [note[:_TEXT] for note in report.notes[:50]],
    }


def _panel(panel: Panel, row_of: dict[int, int]) -> dict[str, Any]:
    return {
        "name": panel.name[:_NAME], "peak": panel.peak, "capacity": panel.capacity,
        "left": panel.left.tolist(), "width": (panel.right - panel.left).tolist(),
        "low": panel.low.tolist(), "height": (panel.high - panel.low).tolist(),
        "row": [row_of[b] for b in panel.buffer.tolist()], "key": panel.key.tolist(),
        "merged": panel.merged.reshape(-1).tolist(), "merged_count": panel.merged_count, "load": _curve(panel.load),
    }  # fmt: skip


def _curve(load: Load) -> dict[str, Any]:
    return {"times": load.times.tolist(), "bytes": load.nbytes.tolist()}


def _label(report: PlanReport, buffer: int) -> str:
    return report.problem.labels[buffer][-_NAME:] if report.problem.labels else ""
