"""What a process costs before its first tensor: the interpreter, the framework, the packages a program imports.

Constants of a CPython 3.11 and PyTorch 2.13 CPU process on Linux, each measured as growth of VmRSS in a fresh process;
``IMPORT_FACTOR`` relates the compiled files of pure Python packages to what their import adds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

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


def base_bytes(*, optimizer: bool) -> int:
    """Resident bytes of a process that has imported what this one has, before its first tensor.

    Args:
        optimizer: the program makes an optimizer.
    """
    roots = {name.partition(".")[0] for name in list(sys.modules)}
    compiler = COMPILER_BYTES if optimizer or roots & _COMPILER_USERS else 0
    return FRAMEWORK_BYTES + compiler + packages_bytes()
