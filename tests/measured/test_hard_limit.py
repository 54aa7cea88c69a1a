"""Under a hard limit of the operating system the step as written dies of memory, and the fitted one runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfit.api.fitted import fit_target
from memfit.errors import VerifyError
from memfit.fitting.verify import run_side

PROGRAM = """
import torch
from torch import nn

def step(rows=65536, layers=10):
    torch.manual_seed(0)
    blocks = [m for _ in range(layers) for m in (nn.Linear(64, 64), nn.GELU(), nn.Dropout(0.1))]
    model = nn.Sequential(*blocks)
    return dict(model=model, inputs=torch.randn(rows, 64), loss=lambda y: y.square().mean(),
                optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3))
"""


@pytest.mark.measured
def test_the_step_dies_of_memory_and_the_fitted_one_completes_five(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    target, recipe = f"{program}:step", str(tmp_path / "recipe.json")
    report = fit_target(target, "35%", recipe=recipe, verify=False)
    free = run_side({"target": target, "settings": {}, "steps": 5, "seed": 3, "mode": "baseline"})
    assert free.peak > 2 * report.budget
    limit = {"memory_limit_above": int(2.3 * report.budget), "target": target, "settings": {}, "steps": 5, "seed": 3}
    with pytest.raises(VerifyError, match=r"memory|allocate"):
        run_side({**limit, "mode": "baseline"})
    fitted = run_side({**limit, "mode": "fitted", "recipe": recipe})
    assert fitted.losses == free.losses
    assert len(fitted.losses) == 5
    assert fitted.digests == free.digests
    assert fitted.peak <= report.budget
