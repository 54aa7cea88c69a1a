"""One side of a JAX verification in a process of its own: ``python -m memfit.frameworks.jax.worker request result``.

Resident bytes are measured: what the process grows by while the compiled step runs, over what it holds after compiling, and
the bytes of the arguments, which it held before. Seconds are process CPU time of a step, results waited for.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memfit.errors import MemfitError
from memfit.files import write_atomically
from memfit.frameworks.jax.compiled import compile_step
from memfit.frameworks.jax.fitting import restore, sizes
from memfit.frameworks.jax.steps import jax_step
from memfit.frameworks.target import build_step
from memfit.ir.recipe import Recipe
from memfit.machine.process import process_bytes


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run the steps that ``request`` names; what ``fitting.verify`` reads of a side."""
    recipe = Recipe.load(request["recipe"]) if request["mode"] == "fitted" else None
    step = jax_step(build_step(request["target"], request["settings"]), request["target"])
    function = step.whole() if recipe is None else restore(step, recipe.options)
    arguments = step.arguments()
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(arguments)):
        raise MemfitError("the step's inputs are shapes, not arrays: nothing can run; return arrays from the target")
    compiled = compile_step(function, arguments, lean=recipe is not None and recipe.options["lean"])
    jax.block_until_ready(
        jax.jit(lambda x: (x @ x).sum())(np.ones((512, 512), np.float32))
    )  # threads and kernels start
    _give_back()
    before = process_bytes() or 0
    _reset_high_water()
    seconds, losses, results = [], [], None
    for _ in range(request["steps"]):
        results = None
        begun = time.process_time()
        results = jax.block_until_ready(compiled.call(*arguments))
        seconds.append(time.process_time() - begun)
        losses.append({"digest": _digest(jax.tree.leaves(results)[0])})
    grown = max(0, (process_bytes("VmHWM") or 0) - before)
    kind = "gradient" if step.train else "output"
    paths = jax.tree_util.tree_leaves_with_path(results)
    if request.get("dump"):
        values: dict[str, Any] = {f"{kind} {jax.tree_util.keystr(p)}": np.asarray(v, np.float64) for p, v in paths}
        np.savez(request["dump"], **values)
    return {
        "peaks": [sizes(arguments) + grown], "seconds": seconds, "losses": losses,
        "digests": {f"{kind} {jax.tree_util.keystr(path)}": _digest(value) for path, value in paths},
        "resident": process_bytes("VmHWM") or 0, "projected": compiled.peak,
    }  # fmt: skip


def _digest(value: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(np.asarray(value)).tobytes()).hexdigest()


def _give_back() -> None:
    """Let the C library return what compiling left free, so that the step's growth is its own."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _reset_high_water() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the high water mark stays that of compiling: measured bytes are then an upper bound


def main() -> None:
    """Read the request, run it, write the result."""
    request, result = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    try:
        found = run(request)
    except MemfitError as error:
        found = {"error": {"kind": type(error).__name__, "message": str(error)}}
    write_atomically(result, json.dumps(found))


if __name__ == "__main__":
    main()
