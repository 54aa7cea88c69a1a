"""What `memfit optimize --budget` found, as plain data: before, after, the error, and the format of every layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class CompressedSide:
    """A model on one side. Bytes of its file, of its constants in memory, and of the peak of a run, measured.

    ``nodes``: operations of a run; ``seconds``: of a run, wall; ``metric``: the user's own figure. None: not measured.
    """

    nodes: int | None
    file_bytes: int
    constants: int
    peak: int | None
    seconds: float | None = None
    metric: float | None = None


@dataclass(frozen=True)
class LayerChoice:
    """A layer's format. ``error``: relative error of the model's output with this layer alone in it (None: unmeasured)."""

    name: str
    format: str
    shape: tuple[int, int]
    before: int
    after: int
    error: float | None


@dataclass(frozen=True)
class TradePoint:
    """The whole model in another form: relative error of its output, measured; bytes of its file, projected.

    ``series``: bits (one format for all layers), sparsity, per layer (at a budget), or chosen (what was written).
    """

    series: str
    name: str
    file_bytes: int
    error: float
    metric: float | None = None


@dataclass(frozen=True)
class CompressionReport:
    """``max_error``: largest difference of an output over its largest value; ``relative_error`` in the 2-norm.

    Both of the whole compressed model on the calibration batch, measured; None where there is no batch.
    ``smallest``: the fewest bytes of file that any allowed choice of formats has, projected.
    """

    model: str
    budget: int | None
    before: CompressedSide
    after: CompressedSide
    max_error: float | None
    relative_error: float | None
    output: str
    recipe: str | None
    layers: tuple[LayerChoice, ...]
    projected_bytes: int
    smallest: int | None = None
    gap: float | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())
    tradeoff: tuple[TradePoint, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object of --json."""
        return {
            "model": self.model, "budget": self.budget, "before": _side(self.before), "after": _side(self.after),
            "max_error": self.max_error, "relative_error": self.relative_error, "output": self.output,
            "recipe": self.recipe, "projected_bytes": self.projected_bytes, "smallest": self.smallest, "gap": self.gap,
            "seconds": self.seconds, "notes": list(self.notes),
            "tradeoff": [asdict(point) for point in self.tradeoff],
            "layers": [
                {"name": row.name, "format": row.format, "shape": list(row.shape), "before": row.before,
                 "after": row.after, "error": row.error}
                for row in self.layers
            ],
        }  # fmt: skip


def _side(side: CompressedSide) -> dict[str, Any]:
    return {
        "nodes": side.nodes, "file_bytes": side.file_bytes, "constants": side.constants, "peak": side.peak,
        "seconds": side.seconds, "metric": side.metric,
    }  # fmt: skip
