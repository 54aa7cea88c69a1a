"""LeverUse: what one change to a program saved and cost; the class of its numerics decides who may pull it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BIT_EXACT, REASSOCIATING, LOSSY = "bit-exact", "reassociating", "lossy"


@dataclass(frozen=True)
class LeverUse:
    """What one lever did. ``numerics``: bit-exact, reassociating or lossy; ``saved`` bytes of peak; cost per step."""

    name: str
    numerics: str
    saved: int
    cost_seconds: float
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """The promised keys, and ``detail``."""
        return {
            "name": self.name, "class": self.numerics, "saved": self.saved, "cost_seconds": self.cost_seconds,
            "detail": self.detail,
        }  # fmt: skip
