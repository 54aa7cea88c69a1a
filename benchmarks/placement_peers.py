"""Other planners on the lifetimes of ``placement_models.py``: Inductor's memory pools and ExecuTorch's greedy.

Both are driven by their own classes, without the compilers around them. What is missing says so and is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from memfit.planners.problem import Problem

_EXECUTORCH = """
import json, sys, time, types
import torch
from executorch.exir import memory_planning
from executorch.exir.tensor import TensorSpec

def planned(case):
    specs = []
    for lower, upper, size in zip(case["lower"], case["upper"], case["size"]):
        spec = TensorSpec(dtype=torch.uint8, shape=torch.Size([size]))
        spec.lifetime = [lower, upper - 1]  # both ends inclusive there
        specs.append(spec)
    begun = time.process_time()
    result = memory_planning.greedy(1, specs, types.SimpleNamespace(meta={}), None)
    seconds = time.process_time() - begun
    offset = [result.spec_dict[spec].mem_offset for spec in specs]
    return {"offset": offset, "seconds": seconds, "reserved": int(max(result.bufsizes))}

answers = {}
for name, case in json.load(sys.stdin).items():
    try:
        answers[name] = planned(case)
    except Exception as error:
        answers[name] = {"peak": None, "seconds": 0.0, "error": repr(error)[:300]}
json.dump(answers, sys.stdout)
"""


def program(variable: str, what: str) -> str | None:
    """The program that an environment variable names, or None with a message."""
    path = os.environ.get(variable)
    if not path:
        print(f"{what} is left out: {variable} names no program", file=sys.stderr)
        return None
    if not Path(path).is_file():
        print(f"{what} is left out: {variable} names {path}, which is no file", file=sys.stderr)
        return None
    return path


def inductor_pools() -> Callable[[Problem], dict[str, Any]] | None:
    """Inductor's planner with ``memory_pool=intermediates``, or None where its classes are not as they were."""
    try:
        import sympy
        import torch
        from torch._inductor import config
        from torch._inductor.codegen.memory_planning import Allocation, AllocationPools, LiveRange
    except ImportError as error:
        print(f"Inductor's pools are left out: {error}", file=sys.stderr)
        return None

    class Node:
        """What an allocation asks of a node."""

        def __init__(self, size: int) -> None:
            self.size = [sympy.Integer(size)]

        def get_layout(self) -> Any:
            return self

        def get_device(self) -> Any:
            return torch.device("cpu")

    def planned(problem: Problem) -> dict[str, Any]:
        columns = zip(problem.lower.tolist(), problem.upper.tolist(), problem.size.tolist(), strict=True)
        blocks = [Allocation(Node(n), LiveRange(a, b), n, sympy.Integer(n)) for a, b, n in columns]  # type: ignore[arg-type]
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(100_000)
        begun = time.process_time()
        try:
            with config.patch(memory_pool="intermediates"):
                pools = AllocationPools()
                for block in sorted(blocks, key=lambda block: -block.size_hint):
                    pools.allocate(block)
            reserved = []
            for number, pool in enumerate(pools.device_to_pools[torch.device("cpu")]):
                pool.finalize(f"pool{number}")
                reserved.append(int(pool.root.get_size_hint()))
            seconds = time.process_time() - begun
        except RecursionError as error:
            return {"peak": None, "seconds": time.process_time() - begun, "error": repr(error)}
        finally:
            sys.setrecursionlimit(limit)
        base = dict(zip([f"pool{i}" for i in range(len(reserved))], np.cumsum([0, *reserved]).tolist(), strict=False))
        offset = [base[block.pool.name] + int(block.offset) for block in blocks]  # type: ignore[union-attr,arg-type,index]
        return {"offset": offset, "seconds": seconds, "reserved": sum(reserved)}

    return planned


def executorch_greedy(python: str, cases: dict[str, Problem]) -> dict[str, dict[str, Any]]:
    """ExecuTorch's ``greedy`` in one process of ``python``; its time is that of the planning alone."""
    columns = {n: {c: getattr(p, c).tolist() for c in ("lower", "upper", "size")} for n, p in cases.items()}
    done = subprocess.run(
        [python, "-c", _EXECUTORCH], input=json.dumps(columns), capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"ExecuTorch is left out: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return {}
    answers: dict[str, dict[str, Any]] = json.loads(done.stdout[done.stdout.index("{") :])
    return answers
