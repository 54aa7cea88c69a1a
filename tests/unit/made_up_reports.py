"""Reports made up for the tests of the drawings: every figure is chosen, none is measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from memfit.analyses.timeline import Timeline, timeline
from memfit.ir.trace import Category, Trace, TraceOp, TraceStorage
from memfit.report.summary import AliveTensor, FitReport, LeverUse, MemoryReport, Moment, Peak, StepFigures

MIB = 1024**2


def made_up_timeline(layers: int = 6, steps: int = 2, kind: str = "projected", timed: bool = False) -> Timeline:
    """A training step of ``layers`` blocks: activations pile up, gradients replace them, an optimizer moves."""
    ops: list[TraceOp] = []
    storages: list[TraceStorage] = []
    events: list[tuple[int, int, int]] = []

    def made(nbytes: int, category: Category, label: str = "") -> int:
        storages.append(TraceStorage(nbytes, category, len(ops) - 1, (nbytes // 4,), "torch.float32", label))
        events.append((len(storages) - 1, nbytes, len(ops) - 1))
        return len(storages) - 1

    def freed(storage: int) -> None:
        events.append((storage, -storages[storage].nbytes, len(ops) - 1))

    def op(name: str, step: int, phase: str, module: str = "") -> None:
        ops.append(
            TraceOp(
                f"aten.{name}", step, phase, module, f"/somewhere/modeling.py:{100 + len(module)}" if module else ""
            )
        )

    op("parameters", -1, "build")
    for layer in range(layers):
        made(8 * MIB, Category.PARAMETERS, f"transformer.h.{layer}.mlp.weight")
    made(MIB, Category.INPUTS, "input_ids")
    state: list[int] = []
    for step in range(steps):
        saved: list[list[int]] = []
        for layer in range(layers):
            module = f"transformer.h.{layer}.attn"
            op("addmm", step, "forward", module)
            kept = [made(6 * MIB, Category.ACTIVATIONS), made(5 * MIB, Category.ACTIVATIONS)]
            op("softmax", step, "forward", module)
            work = made(9 * MIB, Category.TEMPORARIES)
            kept.append(made(7 * MIB, Category.ACTIVATIONS))
            freed(work)
            saved.append(kept)
        gradients = []
        for layer in reversed(range(layers)):
            op("addmm_backward", step, "backward", f"transformer.h.{layer}.attn")
            gradients.append(made(8 * MIB, Category.GRADIENTS))
            work = made(4 * MIB, Category.TEMPORARIES)
            for storage in saved.pop():
                freed(storage)
            freed(work)
        op("_foreach_addcdiv", step, "optimizer")
        if not state:
            state = [made(8 * MIB, Category.OPTIMIZER_STATE) for _ in range(2 * layers)]
        for storage in gradients:
            freed(storage)
    columns = np.array(events, dtype=np.int64)
    seconds = np.linspace(5.0, 5.4, len(events)) if timed else None
    return timeline(Trace(kind, tuple(ops), tuple(storages), columns[:, 0], columns[:, 1], columns[:, 2], seconds))


def long_timeline(events: int, seed: int = 0) -> Timeline:
    """A random walk of ``events`` events over many ops with long names, with one spike that only one event holds."""
    random = np.random.default_rng(seed)
    count = events // 2
    sizes = random.integers(1, 64 * MIB, count)
    spike = int(random.integers(count // 4, count // 2))
    sizes[spike] = 200 * 1024 * MIB
    storage = np.empty(2 * count, dtype=np.int64)
    storage[0::2] = np.arange(count)
    storage[1::2] = np.maximum(np.arange(count) - 20, -1)
    delta = np.where(np.arange(2 * count) % 2 == 0, sizes[storage], 0)
    freed = (np.arange(2 * count) % 2 == 1) & (storage >= 0)
    delta[freed] = -sizes[storage[freed]]
    storage[storage < 0] = 0
    categories = list(Category)
    names = 5000
    ops = tuple(
        TraceOp(
            f"aten.operation_{n}", n * 4 // names, ("forward", "backward", "optimizer", "between")[n * 16 // names % 4],
            "model.decoder." + "very_long_module_name." * 8 + str(n), "/a/very/long/way/" * 8 + f"modeling_{n}.py:{n}",
        )
        for n in range(names)
    )  # fmt: skip
    storages = tuple(TraceStorage(int(n), categories[i % len(categories)], 0) for i, n in enumerate(sizes))
    op = np.minimum(np.arange(2 * count) * names // (2 * count), names - 1)
    return timeline(Trace("measured", ops, storages, storage, delta, op))


def made_up_alive(count: int = 12) -> tuple[AliveTensor, ...]:
    here, model, f32 = "/home/user/gpt2.py:31", "/home/user/site/modeling_gpt2.py:1310", "torch.float32"
    table, block = "transformer.wte", "transformer.h.0.attn.c_attn"
    rows = [
        AliveTensor(147 * MIB, "parameters", (50257, 768), f32, f"{table}.weight", table, here, "build"),
        AliveTensor(147 * MIB, "gradients", (50257, 768), f32, f"{table}.weight.grad", table, here, "aten.embedding"),
        AliveTensor(196 * MIB, "activations", (4, 256, 50257), "torch.bfloat16", "", "lm_head", model, "aten.mm"),
        AliveTensor(
            18 * MIB, "optimizer_state", (2304, 768), f32, f"exp_avg of {block}.weight", block, "", "aten.zeros"
        ),
        AliveTensor(1024, "inputs", (), "torch.int64", "input_ids [not markup]", "", "", "build"),
    ]
    for i in range(count - len(rows)):
        size, shape = (12 - i) * MIB, (4, 12, 256, 256)
        line = f"modeling_gpt2.py:{i}"
        rows.append(AliveTensor(size, "activations", shape, f32, "", f"transformer.h.{i}.attn", line, "aten.bmm"))
    return tuple(rows[:count])


def made_up_memory(**changes: Any) -> MemoryReport:
    """A prediction that fits."""
    drawn = made_up_timeline()
    fields: dict[str, Any] = {
        "kind": "projected",
        "target": "examples/gpt2.py:training_step",
        "device": "cpu",
        "peak": Peak(1642600000, 1660000000, 1700000000, 2100000000, {"resident": (1900000000, 2300000000)}),
        "categories": drawn.categories,
        "at": Moment(
            1, "aten._softmax_backward_data", "transformer.h.3.attn", "/home/user/site/modeling.py:231", "backward"
        ),
        "alive": made_up_alive(),
        "seconds": 1.9,
        "timeline": drawn,
        "fits": True,
        "capacity": 2 * 1024 * MIB,
    }
    return MemoryReport(**{**fields, **changes})


def made_up_profile(**changes: Any) -> MemoryReport:
    """A measured report, held against its projection, with all that a profile may say."""
    extra = {
        "compare": {
            "peak": {"projected": 1642600000, "measured": 1642600000},
            "categories": {
                "parameters": {"projected": 497000000, "measured": 497000000},
                "activations": {"projected": 700000000, "measured": 690000000},
                "buffers": {"projected": 0, "measured": 0},
                "outside": {"projected": None, "measured": 9000000},
            },
            "first_divergence": {
                "op": "aten.convolution", "module": "features.0", "line": "/home/user/net.py:12",
                "projected": 700000000, "measured": 690000000,
            },
        },
        "reconciliation": {
            "tape": 1642600000, "allocator": 1660000000, "resident": 2100000000, "unexplained": 12000000,
        },
        "growth": {"bytes_per_step": 4096, "growing": True},
        "first_step_peak": 1500000000,
        "steady_peak": 1642600000,
    }  # fmt: skip
    fields: dict[str, Any] = {
        "kind": "measured", "timeline": made_up_timeline(kind="measured", timed=True), "projected": made_up_timeline(),
        "extra": extra, "fits": None, "capacity": None, "notes": ("the first step is left out of the steady peak",),
    }  # fmt: skip
    return made_up_memory(**{**fields, **changes})


def made_up_fit(**changes: Any) -> FitReport:
    """A fit that keeps its budget and was verified."""
    before = made_up_timeline(steps=1)
    rows = tuple((float(i), int(v)) for i, v in enumerate(before.live))
    fields: dict[str, Any] = {
        "target": "examples/gpt2.py:training_step",
        "feasible": True,
        "budget": 512 * MIB,
        "smallest_feasible": 431 * MIB,
        "baseline": StepFigures(1566 * MIB, 1566 * MIB, 1.21, rows),
        "fitted": StepFigures(509 * MIB, 510 * MIB, 1.33, tuple((x, v // 3) for x, v in rows)),
        "overhead": 1.0991,
        "exact": True,
        "levers": (
            LeverUse("recompute", "bit-exact", 812 * MIB, 0.098, "37 ops run again"),
            LeverUse(
                "optimizer_in_backward", "bit-exact", 240 * MIB, 0.0, "each parameter steps as its gradient is final"
            ),
            LeverUse("in_place", "bit-exact", 4 * MIB, 0.0),
        ),
        "plan_seconds": 0.84,
        "recipe": "gpt2.recipe.json",
        "lower_bound": 402 * MIB,
        "verified": {
            "loss": {"ok": True, "compared": 3, "differs": ""},
            "gradient": {"ok": True, "compared": 148, "differs": ""},
            "buffer": {"ok": True, "compared": 12, "differs": ""},
            "random state": {"ok": True, "compared": 1, "differs": ""},
            "budget": {"ok": True, "measured": 510 * MIB},
        },
        "memory": made_up_memory(fits=None, capacity=None),
    }
    return FitReport(**{**fields, **changes})
