"""What a process costs before its first tensor: the interpreter, the framework, the packages a program imports.

Constants of a CPython 3.11 and PyTorch 2.13 CPU process on Linux, each measured as growth of VmRSS in a fresh process;
``IMPORT_FACTOR`` relates the compiled files of pure Python packages to what their import adds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from memfit.errors import OutputError
from memfit.files import write_atomically

FRAMEWORK_BYTES = 232_000_000
"""Interpreter, NumPy and PyTorch, imported, with a first tensor made."""
COMPILER_BYTES = 153_000_000
"""PyTorch's compiler front end, which the first optimizer, and most model libraries, import."""
IMPORT_FACTOR = 8.0
"""Resident bytes per byte of compiled Python (.pyc) of other packages."""
WARM_INFERENCE = 17_000_000
"""Code pages and tables that a first forward touches."""
WARM_TRAINING = 11_000_000
"""The same, of a first backward and optimizer step."""
WARM_CONVOLUTION = 8_000_000
"""The same, of oneDNN's convolutions: generated code, primitives."""

_FRAMEWORK_ROOTS = frozenset({
    "torch", "torchgen", "functorch", "numpy", "memfit", "sympy", "mpmath", "networkx", "jinja2", "markupsafe",
    "filelock", "fsspec", "typing_extensions", "click", "rich", "pygments", "markdown_it", "mdurl", "scipy", "nanobind",
    "tqdm", "triton", "pytest", "_pytest", "pluggy", "hypothesis",
})  # fmt: skip
_COMPILER_USERS = frozenset(
    {"transformers", "diffusers", "lightning", "torchvision", "torchaudio", "torchao", "accelerate"}
)
_STATUS = Path("/proc/self/status")


def process_bytes(field: str = "VmRSS") -> int | None:
    """A size of this process in bytes (``VmRSS``, ``VmHWM``), None where Linux's ``/proc`` is missing."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def packages_bytes() -> int:
    """Resident bytes of the packages imported here beside the framework, memfit and the standard library.

    Estimated from the sizes of their compiled files. Cost: one ``stat`` a module, about 5 ms for a thousand.
    """
    total = 0
    for name, module in list(sys.modules.items()):
        root = name.partition(".")[0]
        if root in _FRAMEWORK_ROOTS or root in sys.stdlib_module_names or root.startswith(("_editable", "_sysconfig")):
            continue
        compiled = getattr(module, "__cached__", None)
        if isinstance(compiled, str):
            try:
                total += os.path.getsize(compiled)
            except OSError:
                continue
    return int(total * IMPORT_FACTOR)


_MEASURE = """
import numpy, torch
torch.set_num_threads(1)
torch.zeros(1)
def resident():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmRSS:"))
first = resident()
import torch._dynamo
print(first, resident() - first)
"""


@cache
def framework_bytes() -> tuple[int, int]:
    """Resident bytes of interpreter, NumPy and PyTorch here, and what PyTorch's compiler front end adds.

    Measured once per environment in a fresh interpreter (about 5 s) and kept in ``$MEMFIT_CACHE`` or ``~/.cache/memfit``:
    what an import brings along depends on what else is installed. The shipped constants where that fails.
    """
    try:
        key = hashlib.blake2b(f"{sys.executable} {version('torch')}".encode(), digest_size=8).hexdigest()
        path = Path(os.environ.get("MEMFIT_CACHE") or Path.home() / ".cache" / "memfit") / f"process-{key}.json"
    except (PackageNotFoundError, RuntimeError):
        return FRAMEWORK_BYTES, COMPILER_BYTES
    try:
        first, second = json.loads(path.read_text())
        return int(first), int(second)
    except (OSError, ValueError, TypeError):
        pass
    try:
        run = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, timeout=60, check=True)
        first, second = (int(word) for word in run.stdout.split()[-2:])
    except (OSError, ValueError, subprocess.SubprocessError):
        return FRAMEWORK_BYTES, COMPILER_BYTES
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps([first, second]))
    return first, second


def base_bytes(*, optimizer: bool) -> int:
    """Resident bytes of a process that has imported what this one has, before its first tensor.

    Args:
        optimizer: the program makes an optimizer.
    """
    roots = {name.partition(".")[0] for name in list(sys.modules)}
    framework, compiler = framework_bytes()
    return framework + (compiler if optimizer or roots & _COMPILER_USERS else 0) + packages_bytes()
