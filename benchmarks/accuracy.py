"""Projected against measured memory: every architecture of the zoo x inference, SGD, AdamW for-loop, foreach, fused.

    python benchmarks/accuracy.py [--only gpt2,r] [--modes adamw,inference] [--output benchmarks/results/accuracy.json]

Each figure comes from a process of its own, forked from one that has imported the libraries and nothing else. Measured:
peak bytes that live in torch's CPU allocator over construction and two steps; the peak of the whole
process is ``resident.py``.
Projected: ``memfit.predict``. Peer: torch's ``MemTracker`` under ``FakeTensorMode``, same program, same steps. Results
are written after each case; a run that stopped goes on where it was (``--fresh`` starts over).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODES: dict[str, dict[str, Any]] = {
    "inference": {"train": False},
    "sgd": {"optimizer": "sgd"},
    "adamw": {"optimizer": "adamw"},
    "adamw_foreach": {"optimizer": "adamw_foreach"},
    "adamw_fused": {"optimizer": "adamw_fused"},
}
STEPS = 2


def own_process(work: Callable[[], dict[str, Any]], seconds: int) -> dict[str, Any]:
    """``work()`` in a forked process; ``{"error": ...}`` where it raises, dies or takes longer than ``seconds``."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        child = os.fork()
        if child == 0:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            try:
                result = work()
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                result = {
                    "error": f"{type(error).__name__}: {error}"[:300],
                    "at": f"{Path(last.filename).name}:{last.lineno}",
                }
            Path(file.name).write_text(json.dumps(result))
            os._exit(0)
        deadline = time.monotonic() + seconds
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, 9)
                os.waitpid(child, 0)
                return {"error": f"no answer in {seconds} s"}
            time.sleep(0.01)
        text = file.read()
        return json.loads(text) if text else {"error": "the process died"}


def measure(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run it: allocator peak by the native hook, or by torch's profiler where there is none."""
    import torch
    import zoo

    from memfit.frameworks.torch import allocator_hook
    from memfit.frameworks.torch.steps import run_step

    def run() -> None:
        step = getattr(zoo, name)(**settings)
        for _ in range(STEPS):
            run_step(step)

    torch.manual_seed(0)
    if allocator_hook.is_available():
        allocator_hook.install()
        allocator_hook.reset_peak()
        run()
        peak, by = allocator_hook.peak_bytes(), "allocator hook"
    else:
        with torch.profiler.profile(profile_memory=True) as profiler:
            run()
        events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
        live = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        by = "profiler events"
    return {"measured": peak, "by": by}


def project(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Ask memfit."""
    import torch
    import zoo

    import memfit

    torch.manual_seed(0)
    begun = time.process_time()
    report = memfit.predict(getattr(zoo, name), settings=settings, steps=STEPS)
    peak = report.to_json()["peak"]
    return {
        "projected": peak["allocated"],
        "projected_live": peak["live"],
        "notes": list(report.notes),
        "cpu_seconds": time.process_time() - begun,
        "operation": report.at.op,
    }


def peer(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Ask torch's MemTracker on fake tensors."""
    import torch
    import zoo
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    from memfit.frameworks.torch.steps import run_step

    torch.manual_seed(0)
    begun = time.process_time()
    with FakeTensorMode():
        step = getattr(zoo, name)(**settings)
        tracker = MemTracker()
        inputs = step.inputs.values() if isinstance(step.inputs, dict) else step.inputs
        tensors = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
        tracker.track_external(step.model, *([step.optimizer] if step.optimizer is not None else []), *tensors)
        peaks = []
        for _ in range(STEPS):
            with tracker:
                run_step(step)
            peaks.append(max(value["Total"] for value in tracker.get_tracker_snapshot("peak").values()))
            tracker.reset_mod_stats()
    return {"mem_tracker": max(peaks), "mem_tracker_cpu_seconds": time.process_time() - begun}


def summary(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Errors in percent over all cases that have both figures."""
    result: dict[str, Any] = {"cases": len(cases)}
    columns = {
        "memfit": ("projected", "measured"),
        "mem_tracker": ("mem_tracker", "measured"),
    }
    for who, (projected, measured) in columns.items():
        errors = {
            k: 100.0 * (c[projected] - c[measured]) / c[measured]
            for k, c in cases.items()
            if projected in c and measured in c
        }
        if not errors:
            continue
        sizes = sorted(abs(error) for error in errors.values())
        result[who] = {
            "answered": len(errors),
            "median": statistics.median(sizes),
            "mean": statistics.fmean(sizes),
            "p90": sizes[min(len(sizes) - 1, int(0.90 * len(sizes)))],
            "p95": sizes[min(len(sizes) - 1, int(0.95 * len(sizes)))],
            "worst": sizes[-1],
            "worst_cases": sorted(errors.items(), key=lambda item: -abs(item[1]))[:10],
            "under_by_2_percent": sum(error < -2 for error in errors.values()) / len(errors),
        }
    return result


def main() -> None:
    """Run the cases that are missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="architectures, separated by commas")
    parser.add_argument("--modes", help=f"of {', '.join(MODES)}")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "accuracy.json")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--no-peer", action="store_true", help="leave MemTracker out")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.path.insert(0, str(HERE.parent / "examples"))

    import torch
    import torch.utils.checkpoint
    import transformers

    torch.set_num_threads(1)
    import zoo

    with torch.device("meta"):  # only to import what each architecture needs before the processes part
        for name in options.only.split(",") if options.only else zoo.ARCHITECTURES:
            with contextlib.suppress(Exception):
                getattr(zoo, name)(optimizer="none")

    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    ).stdout.strip()
    document: dict[str, Any] = {
        "commit": commit,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "threads": 1},
        "cases": {},
    }
    if options.output.is_file() and not options.fresh:
        document["cases"] = json.loads(options.output.read_text())["cases"]
    names = options.only.split(",") if options.only else list(zoo.ARCHITECTURES)
    modes = options.modes.split(",") if options.modes else list(MODES)
    wanted = [(name, mode) for name in names for mode in modes]
    for number, (name, mode) in enumerate(wanted, 1):
        key = f"{name} {mode}"
        case = document["cases"].get(key, {})
        if "measured" not in case or "projected" not in case:
            case = own_process(partial(measure, name, MODES[mode]), 120)
            answer = own_process(partial(project, name, MODES[mode]), 120)
            case |= {("projection_" + k if k in ("error", "at") else k): v for k, v in answer.items()}
            if not options.no_peer:
                answer = own_process(partial(peer, name, MODES[mode]), 120)
                case |= {("mem_tracker_" + k if k in ("error", "at") else k): v for k, v in answer.items()}
            document["cases"][key] = case
            document["summary"] = summary(document["cases"])
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(document, indent=1) + "\n")
        measured, projected = case.get("measured"), case.get("projected")
        if measured and projected:
            other = case.get("mem_tracker")
            error = 100 * (projected - measured) / measured
            text = f"{measured / 1e6:9.3f} MB measured  {projected / 1e6:9.3f} projected  {error:+8.3f} %   MemTracker "
            text += f"{100 * (other - measured) / measured:+8.3f} %" if other else "crashed"
        else:
            text = f"failed: {case.get('error') or case.get('projection_error')}"
        print(f"{number:3d}/{len(wanted)} {key:26s} {text}", flush=True)
    print(json.dumps(document.get("summary", summary(document["cases"])), indent=1))


if __name__ == "__main__":
    main()
