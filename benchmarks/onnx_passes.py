"""Operations, bytes and seconds after the exact passes on eight ONNX models, the other optimisers in the same run.

Each optimiser gets the loaded model and gives one back; seconds are CPU seconds of that call (reading and writing left out for
all), the best of --repeats. Every result is run beside the original at two sizes of its open axes: `sound` is whether outputs
agree to 1e-4 at both. Bytes are constants + live peak in stored order, projected by memfit for all alike at B=8, S=64. With
--process the tied GPT-2 is also run in fresh processes.

    python benchmarks/onnx_passes.py --folder ONNX_FOLDER [--models bert gpt2] [--process]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
from onnx_models import BATCH, SEQUENCE, models

BOUND = {"batch": BATCH, "seq": SEQUENCE}


def peers() -> dict[str, Callable[[Any], Any]]:
    """Name -> optimiser; one that is not installed raises ImportError when called."""
    import onnxruntime as ort

    def slim(model: Any) -> Any:
        import onnxslim

        return onnxslim.slim(model)

    def sim(model: Any) -> Any:
        import onnxsim

        return onnxsim.simplify(model)[0]

    def script(model: Any) -> Any:
        import onnxscript.optimizer

        return onnxscript.optimizer.optimize(model)

    def optimizer(model: Any) -> Any:
        import onnxoptimizer

        return onnxoptimizer.optimize(model, onnxoptimizer.get_fuse_and_elimination_passes(), fixed_point=True)

    def basic(model: Any) -> Any:
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = f"{folder}/model.onnx"
            options.log_severity_level = 4
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return onnx.load(f"{folder}/model.onnx")

    return {"onnxslim": slim, "onnxsim": sim, "onnxscript": script, "onnxoptimizer": optimizer, "ort_basic": basic}


def memfit_optimizer(model: Any) -> Any:
    """The same contract: ModelProto in, ModelProto out."""
    from memfit.frameworks.onnx.bench import Bench
    from memfit.frameworks.onnx.capture import capture_model
    from memfit.frameworks.onnx.rewrites import REWRITES
    from memfit.frameworks.onnx.writing import model_proto
    from memfit.passes.exact import optimize_program

    captured = capture_model(model)
    bench = Bench(captured.weights, captured.program.meta["opsets"])
    return model_proto(optimize_program(captured.program, bench, rewrites=REWRITES).program, captured.weights)


def figures(model: Any) -> dict[str, int]:
    """Nodes, constants and constants + live peak of a model."""
    from memfit.analyses.liveness import simulate
    from memfit.analyses.lowering import lower, numbers_for
    from memfit.frameworks.onnx.capture import capture_model

    program = capture_model(model).program
    numbers = numbers_for(program, {k: v for k, v in BOUND.items() if k in program.dimensions}, default=BATCH)
    graph = lower(program, numbers, in_place=False)
    return {
        "nodes": len(model.graph.node), "constants": program.constant_bytes,
        "peak": simulate(graph, range(len(graph.ops))).peak,
    }  # fmt: skip


def measure(path: Path, optimise: Callable[[Any], Any], repeats: int, keep: Path) -> dict[str, Any]:
    """One optimiser on one model."""
    import onnx

    from memfit.frameworks.onnx.capture import capture
    from memfit.frameworks.onnx.running import compare

    seconds = []
    for _ in range(repeats):
        model = onnx.load(str(path))
        begun = time.process_time()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            made = optimise(model)
        seconds.append(time.process_time() - begun)
    onnx.save(made, str(keep))
    result: dict[str, Any] = {"nodes": len(made.graph.node), "cpu_seconds": seconds, "file_bytes": keep.stat().st_size}
    try:
        result |= figures(onnx.load(str(keep)))
    except Exception as error:
        result["figures_error"] = str(error)[:200]
    try:
        found = compare(capture(path).program, (str(path), str(keep)), {})
        result |= {"max_error": found.max_error, "sound": found.max_error <= 1e-4}
    except Exception as error:
        result |= {"sound": False, "why": str(error)[-200:]}
    return result


def process_figures(path: Path, files: dict[str, Path]) -> dict[str, Any]:
    """Resident peak over the empty process, in fresh processes, by file and session settings."""
    from memfit.analyses.lowering import numbers_for
    from memfit.frameworks.comparing import inputs_for
    from memfit.frameworks.onnx.capture import capture
    from memfit.frameworks.onnx.running import ENVIRONMENT, LEAN, PLAIN, process_peak

    program = capture(path).program
    inputs = inputs_for(program, numbers_for(program, BOUND))
    result: dict[str, Any] = {}
    for name, file in files.items():
        for label, settings, environment in (
            ("default", PLAIN, {}),
            ("settings", LEAN, {}),
            ("lean", LEAN, ENVIRONMENT),
        ):
            with tempfile.TemporaryDirectory() as folder:
                found = process_peak(file, inputs, settings, folder, runs=1, environment=environment)
            result.setdefault(name, {})[label] = found["peak"] - found["empty"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/memfit-onnx"))
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--process", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for name, path in models(arguments.folder, arguments.models).items():
        import onnx

        rows: dict[str, Any] = {"original": {**figures(onnx.load(str(path))), "file_bytes": path.stat().st_size}}
        kept: dict[str, Path] = {"original": path}
        for peer, optimise in {"memfit": memfit_optimizer, **peers()}.items():
            keep = arguments.folder / f"{name}-{peer}.onnx"
            try:
                rows[peer] = measure(path, optimise, arguments.repeats, keep)
                kept[peer] = keep
            except ImportError as error:
                rows[peer] = {"absent": str(error)}
            except Exception as error:
                rows[peer] = {"failed": str(error)[:200]}
        sound = [row["nodes"] for peer, row in rows.items() if peer not in ("original", "memfit") and row.get("sound")]
        rows["best_sound_peer_nodes"] = min(sound, default=None)
        if arguments.process and name == "gpt2":
            rows["process"] = process_figures(path, kept)
        results[name] = rows
        print(name, rows["original"]["nodes"], "best sound peer", rows["best_sound_peer_nodes"], flush=True)
        for peer, row in rows.items():
            if isinstance(row, dict) and "nodes" in row:
                print(f"  {peer:14} nodes {row['nodes']:5} constants {row.get('constants', 0) / 1e6:7.1f} MB peak "
                      f"{row.get('peak', 0) / 1e6:7.1f} MB  sound {row.get('sound')} error {row.get('max_error')} "
                      f"{min(row.get('cpu_seconds', [0])):.2f} s", flush=True)  # fmt: skip
            elif isinstance(row, dict):
                print(f"  {peer:14} {row}", flush=True)
    record.write("onnx-passes", {"bound": BOUND, "repeats": arguments.repeats, "models": results})


if __name__ == "__main__":
    main()
