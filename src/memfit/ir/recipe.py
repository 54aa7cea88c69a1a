"""Recipe: everything needed to run a fitted step again, as a JSON file; no code, no pickles, no weights.

A recipe names the target and its settings, the budget, and per shape bucket (the shapes of the input tensors) the
schedule with the fingerprint of the graph it was made for. A program that changed since has another fingerprint and is
planned anew, never run with a schedule that is not its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from memfit.errors import TraceError
from memfit.files import write_atomically

FORMAT = 1


@dataclass(frozen=True)
class BucketPlan:
    """One shape bucket: ``shapes`` of the input tensors, the graph's ``fingerprint``, the ``schedule``, its figures."""

    shapes: list[Any]
    fingerprint: str
    schedule: list[int]
    peak: int
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """See the module text. ``mode``: graph, or modules with what ``modules`` holds; bytes are projected."""

    target: str
    settings: dict[str, Any]
    budget: int
    mode: str = "graph"
    held: int = 0
    buckets: list[BucketPlan] = field(default_factory=list)
    modules: dict[str, Any] = field(default_factory=dict)
    levers: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def save(self, path: str | Path) -> None:
        """Write the recipe, whole or not at all."""
        write_atomically(path, json.dumps(asdict(self)))

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Read what ``save`` wrote.

        Raises:
            TraceError: the file is missing, damaged, or no recipe.
        """
        try:
            row = json.loads(Path(path).read_text())
            if row.get("format") != FORMAT:
                raise TraceError(str(path), f"recipe format {row.get('format')!r}, this memfit reads {FORMAT}")
            row["buckets"] = [BucketPlan(**bucket) for bucket in row["buckets"]]
            return Recipe(**row)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TraceError(str(path), f"not a memfit recipe ({error})") from error
