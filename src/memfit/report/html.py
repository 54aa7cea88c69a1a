"""One self-contained page of a report: no network, light and dark, under 5 MB whatever the length of the trace.

The page is a fixed frame (``assets/``) plus one JSON object; all that is drawn is drawn by the frame's script from that
object, as text nodes, so that nothing in a user's names can become markup. The chart is uPlot (MIT, vendored with its
licence). Where the object grows too large it is thinned again with half the points: peaks stay (see ``decimation``).
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from memfit.report.curves import curve, line_points, segments
from memfit.report.summary import AliveTensor, FitReport, MemoryReport
from memfit.report.terminal import headline
from memfit.report.terminal_fit import fit_headline, sentence, use_it, verdict
from memfit.report.words import CATEGORY_WORDS, COLOURS, METER_WORDS, TENSOR_WORDS, name_word, op_word, shape_word

MAX_BYTES = 5_000_000
"""No page is larger."""

POINTS = 4000
ROWS = 500
_TEXT = 300
_PHASES = 400


def memory_page(report: MemoryReport) -> str:
    """The page of a prediction or a profile. Cost: O(events)."""
    return _bounded(lambda limit: _memory(report, limit))


def fit_page(report: FitReport) -> str:
    """The page of a fit. Cost: O(events)."""
    return _bounded(lambda limit: _fit(report, limit))


def _bounded(build: Any) -> str:
    limit = POINTS
    while True:
        page = _page(build(limit))
        if len(page.encode("utf-8", "replace")) <= MAX_BYTES or limit <= 16:
            return page
        limit //= 2


def _page(data: dict[str, Any]) -> str:
    return framed(data, styles=("uPlot.min.css", "page.css"), scripts=("uPlot.iife.min.js", "page.js"))


def framed(data: dict[str, Any], *, styles: tuple[str, ...], scripts: tuple[str, str]) -> str:
    """The frame (``assets/page.html``) around ``data`` (with ``verb`` and ``target``), by names of files in ``assets/``.

    ``scripts``: what draws a chart or holds parts, then what draws the page from ``data``.
    """
    assets = files("memfit.report") / "assets"

    def read(name: str) -> str:
        return (assets / name).read_text(encoding="utf-8")

    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str).replace("<", "\\u003c")
    parts = {
        "title": html.escape(f"memfit {data['verb']}: {data['target']}"),
        "styles": "".join(map(read, styles)),
        "data": text,
        "chart": read(scripts[0]),
        "script": read(scripts[1]),
    }
    pieces = read("page.html").split("%%")  # text, name, text, name, ..., text
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def _memory(report: MemoryReport, limit: int) -> dict[str, Any]:
    return {
        "verb": "predict" if report.kind == "projected" else "profile",
        "target": _cut(report.target),
        "headline": _cut(headline(report)),
        "fits": report.fits,
        **_memory_parts(report, limit),
    }


def _memory_parts(report: MemoryReport, limit: int) -> dict[str, Any]:
    rows = sorted(report.alive, key=lambda tensor: -tensor.nbytes)[: ROWS * limit // POINTS]
    peak = report.peak
    return {
        "device": report.device,
        "seconds": report.seconds,
        "kind": report.kind,
        "peaks": {
            name: {"bytes": getattr(peak, name), "interval": list(peak.intervals.get(name, ()))}
            for name in ("live", "allocated", "reserved", "resident")
        },
        "categories": [
            {"name": name, "word": CATEGORY_WORDS.get(name, name), "bytes": nbytes}
            for name, nbytes in report.categories.items()
        ],
        "colours": COLOURS,
        "words": CATEGORY_WORDS,
        "chart": _chart(report, limit),
        "alive": [_alive_row(tensor) for tensor in rows],
        "largest": report.largest_batch,
        "compare": _compare(report.extra.get("compare")),
        "facts": _facts(report.extra),
        "notes": [_cut(note) for note in report.notes[:50]],
    }


def _chart(report: MemoryReport, limit: int) -> dict[str, Any] | None:
    if report.timeline is None or not len(report.timeline.trace):
        return None
    curves = [curve(report.timeline, report.kind, limit)]
    if report.projected is not None and len(report.projected.trace):
        curves.append(curve(report.projected, "projected", limit, over=report.timeline))
    phases = [[part.step, part.phase, part.start, part.stop] for part in segments(report.timeline)]
    return {"curves": curves, "phases": phases if len(phases) <= _PHASES else [], "capacity": report.capacity}


def _alive_row(tensor: AliveTensor) -> dict[str, Any]:
    return {
        "bytes": tensor.nbytes,
        "category": tensor.category,
        "word": TENSOR_WORDS.get(tensor.category, tensor.category),
        "shape": shape_word(tensor.shape, tensor.dtype)[:80],
        "name": name_word(tensor)[-_TEXT:],
        "op": _cut(op_word(tensor.op)),
        "line": tensor.line[-_TEXT:],
    }


def _compare(compare: Any) -> dict[str, Any] | None:
    if not isinstance(compare, Mapping):
        return None
    rows = {"peak live": compare.get("peak"), **(compare.get("categories") or {})}
    return {
        "rows": [
            {
                "name": CATEGORY_WORDS.get(name, name),
                "projected": pair.get("projected"),
                "measured": pair.get("measured"),
            }
            for name, pair in rows.items()
            if isinstance(pair, Mapping) and (pair.get("projected") or pair.get("measured"))
        ],
        "divergence": compare.get("first_divergence"),
    }


def _facts(extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Bytes that explain the figures, with the words of the terminal summary."""
    found: list[dict[str, Any]] = []
    reconciliation = extra.get("reconciliation")
    if isinstance(reconciliation, Mapping):
        found += [
            {"name": METER_WORDS.get(n, str(n).replace("_", " ")), "bytes": v}
            for n, v in reconciliation.items()
            if isinstance(v, int)
        ]
    for name in ("first_step_peak", "steady_peak"):
        if isinstance(extra.get(name), int):
            found.append({"name": name.replace("_", " "), "bytes": extra[name]})
    growth = extra.get("growth")
    if isinstance(growth, Mapping) and isinstance(growth.get("growing"), bool):
        found.append(
            {"name": "kept from step to step", "bytes": growth.get("bytes_per_step"), "bad": growth["growing"]}
        )
    return found


def _fit(report: FitReport, limit: int) -> dict[str, Any]:
    memory = _memory_parts(report.memory, limit) if report.memory is not None else {}
    return {
        "verb": "fit",
        "target": _cut(report.target),
        "headline": _cut(fit_headline(report)),
        "fits": report.feasible,
        "colours": COLOURS,
        "words": CATEGORY_WORDS,
        **memory,
        "notes": [_cut(note) for note in (*report.notes[:50], *memory.get("notes", ()))],
        "fit": {
            "budget": report.budget,
            "lower_bound": report.lower_bound,
            "smallest_feasible": report.smallest_feasible,
            "overhead": report.overhead,
            "plan_seconds": report.plan_seconds,
            "baseline": {**report.baseline.to_json(), "line": line_points(report.baseline.timeline, limit)},
            "fitted": {**report.fitted.to_json(), "line": line_points(report.fitted.timeline, limit)},
            "levers": [{**lever.to_json(), "detail": _cut(lever.detail)} for lever in report.levers[:ROWS]],
            "verified": [
                {"mark": verdict(found), "text": _cut(sentence(name, found))}
                for name, found in list(report.verified.items())[:ROWS]
            ],
            "use": use_it(report) if report.recipe else [],
        },
    }


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
