"""The probes of the frameworks that the program has imported by now; none is imported for the hunt's sake."""

from __future__ import annotations

import sys

from memfit.ir.leak_probe import Probe
from memfit.observe.probes import ArrayProbe, Probes, PythonProbe


def probes_now() -> Probes:
    """Probes for Python, NumPy and, where the program uses it, torch."""
    found: list[Probe] = [ArrayProbe(), PythonProbe()]
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "Tensor") and hasattr(torch, "cuda"):
        from memfit.frameworks.torch.leak_probe import TorchProbe

        found.insert(0, TorchProbe())
    return Probes(found)
