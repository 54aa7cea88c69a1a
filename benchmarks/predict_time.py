"""How long a prediction takes, after imports: GPT-2 124M, its largest batch on a GPU that is not here, Llama 70B.

    python benchmarks/predict_time.py

Each case is the first prediction of its program in the process. Peak bytes are those of this process, all cases together.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import zoo

import memfit

BIG = {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50257, "length": 256, "batch": 4}


def main() -> None:
    """Run the cases and write the table."""
    torch.set_num_threads(1)
    imported = [transformers.GPT2LMHeadModel, transformers.LlamaForCausalLM]
    assert all(imported)
    cases: list[tuple[str, Callable[..., Any], dict[str, Any], dict[str, Any]]] = [
        ("GPT-2 124M, AdamW, two steps", zoo.gpt2, BIG, {}),
        ("GPT-2 124M, AdamW, largest batch on an A100", zoo.gpt2, BIG, {"device": "a100", "find_batch": "batch"}),
        ("Llama 70B, AdamW, on one H100 of 80 GB", zoo.llama70b, {}, {"device": "h100"}),
    ]
    rows = []
    for label, function, settings, more in cases:
        cpu, wall = time.process_time(), time.perf_counter()
        report = memfit.predict(function, settings=settings, **more)
        rows.append({
            "case": label, "cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall,
            "projected_live": report.peak.live, "fits": report.fits, "largest_batch": report.largest_batch,
            "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        })  # fmt: skip
        seconds = rows[-1]["cpu_seconds"]
        print(f"{label:48}{seconds:6.2f} s CPU  {report.peak.live / 1e9:8.2f} GB  fits: {report.fits}", flush=True)
    print("wrote", record.write("predict-time", {"threads": 1, "rows": rows}))


if __name__ == "__main__":
    main()
