"""One run of an ONNX model in a fresh process: prints by how many bytes its largest resident size grew.

Started as ``python -m memfit.frameworks.onnx.peak_worker MODEL INPUTS.npz``.
"""

from __future__ import annotations

import sys

import numpy as np

from memfit.frameworks.onnx.quantize import run, session_of
from memfit.machine.process import process_bytes


def main(model: str, inputs: str) -> int:
    """Run twice; the growth goes to standard output."""
    with np.load(inputs, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    before = process_bytes("VmRSS") or 0
    session = session_of(model)
    run(session, arrays)
    run(session, arrays)
    print((process_bytes("VmHWM") or 0) - before)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
