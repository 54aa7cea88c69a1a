"""The devices that each installed framework sees here: asked in a process of its own, memory in all, free and in use.

Importing a framework takes seconds and its drivers take memory, so nothing is imported into the process that asks. One that is
not installed is left out; one that does not answer is a row that says so.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_WAIT = 120.0
_ASK = {
    "torch": """
import torch
rows = [{"name": "cpu", "kind": "cpu"}]
for i in range(torch.cuda.device_count()):
    free, whole = torch.cuda.mem_get_info(i)
    rows.append({"name": torch.cuda.get_device_name(i), "kind": "gpu", "memory": whole, "free": free, "used": whole - free})
if torch.backends.mps.is_available():
    used = torch.mps.driver_allocated_memory()
    rows.append({"name": "mps", "kind": "gpu", "memory": torch.mps.recommended_max_memory(), "used": used})
""",
    "jax": """
import os
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
import jax
rows = []
for d in jax.devices() + (jax.devices("cpu") if jax.default_backend() != "cpu" else []):
    found = d.memory_stats() or {}
    row = {"name": "cpu" if d.platform == "cpu" else d.device_kind, "kind": d.platform}
    if "bytes_limit" in found:
        whole, used = found["bytes_limit"], found["bytes_in_use"]
        row |= {"memory": whole, "used": used, "free": whole - used}
    rows.append(row)
""",
    "tensorflow": """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
rows = []
for d in tf.config.list_physical_devices():
    row = {"name": "cpu" if d.device_type == "CPU" else d.name.split(":", 1)[1], "kind": d.device_type.lower()}
    if d.device_type == "GPU":
        tf.config.experimental.set_memory_growth(d, True)
        row["used"] = tf.config.experimental.get_memory_info(d.name.split(":", 1)[1])["current"]
    rows.append(row)
""",
    "onnxruntime": """
import onnxruntime
names = {"CPUExecutionProvider": "cpu"}
rows = [{"name": names.get(p, p), "kind": "cpu" if p in names else "provider"} for p in onnxruntime.get_available_providers()]
""",
}
_PRINT = "\nimport json\nprint()\nprint(json.dumps(rows))"


def framework_devices(free: int, whole: int) -> list[dict[str, Any]]:
    """A row for each device of each installed framework: ``framework``, ``name``, ``kind``, and bytes where it tells them.

    Args:
        free, whole: bytes of this machine's memory, for the CPU, of which frameworks say nothing.

    Cost: a start of each framework, at once; seconds.
    """
    installed = [name for name in _ASK if importlib.util.find_spec(name) is not None]
    with ThreadPoolExecutor(max(1, len(installed))) as executor:
        answers = list(executor.map(_asked, installed))
    rows: list[dict[str, Any]] = []
    for name, found in zip(installed, answers, strict=True):
        for row in found:
            if row.get("kind") == "cpu":
                row |= {"memory": whole, "free": free, "used": whole - free}
            rows.append({"framework": name, **row})
    return rows


def _asked(framework: str) -> list[dict[str, Any]]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK[framework] + _PRINT], capture_output=True, text=True, timeout=_WAIT, check=True
        )
        rows: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return [{"name": "?", "kind": "none", "error": f"it does not answer within {_WAIT:.0f} s"}]
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1][:200]
        return [{"name": "?", "kind": "none", "error": last}]
    except (ValueError, IndexError):
        return [{"name": "?", "kind": "none", "error": "it answers with something else than devices"}]
    return rows
