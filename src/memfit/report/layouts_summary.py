"""What a comparison of memory layouts found, as plain data: what the drawings share, and the object of --json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memfit.allocators.layouts import Comparison, Layout
from memfit.units import format_bytes


@dataclass(frozen=True)
class LayoutsReport:
    """``comparison`` of ``target``; ``kind``: whether its requests are projected, measured or recorded; ``labels``: what
    people call each block, or ().
    """

    target: str
    kind: str
    comparison: Comparison
    labels: tuple[str, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; every byte figure is projected."""
        found = self.comparison
        return {
            "target": self.target, "kind": self.kind, "events": found.events, "blocks": found.blocks,
            "peak_live": found.peak_live, "event": found.event, "lower_bound": found.bound,
            "layouts": [
                {
                    "name": layout.name, "title": layout.title, "peak_reserved": layout.reserved, "live": layout.live,
                    "internal": layout.inside, "external": layout.between, "metadata": layout.metadata,
                    "fragmentation": layout.fragmentation,
                }
                for layout in found.layouts
            ],
            "seconds": self.seconds, "notes": list(self.notes),
        }  # fmt: skip


def total(layout: Layout) -> int:
    """Bytes with the bookkeeping."""
    return layout.reserved + layout.metadata


def layouts_headline(report: LayoutsReport) -> str:
    """The answer in one sentence."""
    found = report.comparison
    best = min(found.layouts, key=total)
    worst = max(found.layouts, key=total)
    text = f"Of {format_bytes(found.peak_live)} live at once: {best.title} takes {format_bytes(total(best))}"
    return text + (f", {worst.title} {format_bytes(total(worst))}" if total(worst) > total(best) else "")
