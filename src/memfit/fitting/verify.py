"""Verify a fitted step: baseline and fitted run in fresh processes from the same seed, and are held side by side.

Bit-exact levers: loss, gradients, parameters, buffers, optimizer state and random state must have equal bytes. Inexact
ones: the largest difference, relative to the largest value, is stated. Peak bytes are measured by the allocator hook.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memfit.errors import VerifyError

_KINDS = ("loss", "gradient", "parameter", "buffer", "optimizer", "random state", "output")


@dataclass(frozen=True)
class Side:
    """What one process did. Bytes measured, seconds of process CPU time per step."""

    peak: int
    step_seconds: float
    seconds: list[float]
    losses: list[dict[str, Any]]
    digests: dict[str, str]
    resident: int
    dump: str | None = None
    projected: int = 0


@dataclass(frozen=True)
class Verification:
    """Both sides. ``exact``: bit-identical in everything; ``checks``: kind -> {ok, compared, first difference}."""

    baseline: Side | None
    fitted: Side
    exact: bool
    checks: dict[str, Any]
    max_error: float
    notes: list[str] = field(default_factory=list)


_WORKER = "memfit.frameworks.torch.worker"


def run_side(request: dict[str, Any], *, timeout: float | None = None, worker: str = _WORKER) -> Side:
    """Run one side in a fresh process. ``worker``: the module that runs the steps of one framework.

    Raises:
        VerifyError: the process died or reported an error; the message holds its reason.
    """
    with tempfile.TemporaryDirectory(prefix="memfit-verify-") as folder:
        paths = [str(Path(folder) / name) for name in ("request.json", "result.json")]
        Path(paths[0]).write_text(json.dumps(request))
        done = subprocess.run(
            [sys.executable, "-m", worker, *paths],
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if not Path(paths[1]).exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise VerifyError(f"the {request['mode']} process", "a result", f"exit {done.returncode}: {last}")
        result = json.loads(Path(paths[1]).read_text())
    if "error" in result:
        raise VerifyError(
            f"the {request['mode']} step", "a run", f"{result['error']['kind']}: {result['error']['message']}"
        )
    steady = result["seconds"][1:] or result["seconds"]
    return Side(
        max(result["peaks"]), statistics.median(steady), result["seconds"], result["losses"], result["digests"],
        result["resident"], request.get("dump"), result.get("projected", 0),
    )  # fmt: skip


def verify(
    target: str, settings: dict[str, Any], recipe: str, *, steps: int = 3, seed: int = 0, inexact: bool = False,
    baseline: Side | None = None, worker: str = _WORKER,
) -> Verification:  # fmt: skip
    """Run baseline and fitted for ``steps`` steps and compare everything.

    A baseline that cannot run here (it may not fit: that is why one fits) leaves peak and losses of the fitted side alone.
    """
    notes = []
    with tempfile.TemporaryDirectory(prefix="memfit-values-") as folder:
        common = {"target": target, "settings": settings, "steps": steps, "seed": seed}
        dumps = [str(Path(folder) / f"{side}.npz") if inexact else None for side in ("baseline", "fitted")]
        if baseline is None:
            try:
                baseline = run_side({**common, "mode": "baseline", "dump": dumps[0]}, worker=worker)
            except VerifyError as error:
                notes.append(f"the baseline did not run here, so results could not be compared: {error.found}")
        fitted = run_side({**common, "mode": "fitted", "recipe": recipe, "dump": dumps[1]}, worker=worker)
        if baseline is None:
            return Verification(None, fitted, False, {}, float("nan"), notes)
        checks = compare(baseline, fitted)
        exact = all(check["ok"] for check in checks.values())
        compared = [baseline.dump, dumps[1]] if inexact and not exact and baseline.dump else None
        largest = _largest_error(compared) if compared else 0.0 if exact else float("nan")
    return Verification(baseline, fitted, exact, checks, largest, notes)


def compare(baseline: Side, fitted: Side) -> dict[str, Any]:
    """Per kind: whether all bytes are equal, how many were compared, and the first that differs."""
    checks: dict[str, Any] = {}
    losses = [a["digest"] == b["digest"] for a, b in zip(baseline.losses, fitted.losses, strict=True)]
    checks["loss"] = {
        "ok": all(losses),
        "compared": len(losses),
        "differs": "" if all(losses) else f"step {losses.index(False)}",
    }
    for kind in _KINDS[1:]:
        names = [n for n in {**baseline.digests, **fitted.digests} if n.startswith(kind)]
        if names:
            different = [n for n in names if baseline.digests.get(n) != fitted.digests.get(n)]
            checks[kind] = {"ok": not different, "compared": len(names), "differs": different[0] if different else ""}
    return checks


def _largest_error(dumps: list[str | None]) -> float:
    assert dumps[0] is not None
    assert dumps[1] is not None
    worst = 0.0
    with np.load(dumps[0]) as before, np.load(dumps[1]) as after:
        for name in before.files:
            if (
                name in after.files
                and before[name].dtype.kind == "f"
                and before[name].size
                and before[name].shape == after[name].shape
            ):
                scale = float(np.max(np.abs(before[name]))) or 1.0
                worst = max(worst, float(np.max(np.abs(before[name] - after[name]))) / scale)
    return worst
