"""Operator order: bytes at the peak against the program's order, breadth-first order and torch Inductor's, with proof.

    python benchmarks/order.py [--quick] [--only TABLE]

Writes benchmarks/results/order.json. Peaks are the simulator's, projected, of activations and gradients: constants
(parameters, inputs, optimizer state) are left out unless a name ends in ``_total``; all orders of a graph are judged
alike. Seconds: CPU seconds of this process. Tables:
  irregular   searched cells and random wirings (irregular_networks.py), SERENITY's kind of network, also rewritten;
  inductor    the models of Inductor's pull request 134874 (AlexNet, VGG-16, DeBERTa-v2) and OLLA's AlexNet, gradients
              kept as outputs and with an optimizer;
  zoo         the models of examples/zoo.py at their own sizes, training with their optimizer and inference;
  recorded    benchmarks/instances;
  shapes      random graphs: share proved optimal, seconds;
  large       about 10,000 ops.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import inductor_orders
import irregular_networks
import record

from memfit.analyses.liveness import simulate
from memfit.ir.graph import Graph, why_invalid
from memfit.passes.order import order_for_peak
from memfit.testing.order_shapes import series_parallel, wired
from memfit.testing.strategies import convolutional, transformer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))


ZOO = (
    "gpt2", "bert", "t5", "resnet", "mobilenet", "unet", "vit", "convnext", "swin", "mamba", "mixtral", "whisper",
    "albert", "bart", "autoencoder",
)  # fmt: skip


def row_of(name: str, graph: Graph, limit: float, **more: Any) -> dict[str, Any]:
    """One graph, every order."""
    base = graph.base_bytes
    began = time.process_time()
    found = order_for_peak(graph, time_limit=limit)
    spent = time.process_time() - began
    assert why_invalid(graph, found.schedule) == ""
    assert simulate(graph, found.schedule).peak == found.peak <= found.given_peak
    row: dict[str, Any] = {
        "graph": name, "ops": len(graph.ops), "given": found.given_peak - base, "peak": found.peak - base,
        "bound": found.bound - base, "optimal": found.optimal, "gain": (found.given_peak - base) / (found.peak - base),
        "gain_total": found.given_peak / found.peak, "seconds": spent, "strategy": found.strategy, **more,
    }  # fmt: skip
    try:
        began = time.process_time()
        orders = inductor_orders.inductor_orders(graph)
        row["inductor_seconds"] = time.process_time() - began
        row["inductor"] = {m: simulate(graph, order).peak - base for m, order in orders.items()}
        row["inductor_best"] = min(*row["inductor"].values(), row["given"])
        row["inductor_valid"] = all(why_invalid(graph, order) == "" for order in orders.values())
    except (ImportError, AttributeError, TypeError) as error:
        row["inductor_missing"] = f"{type(error).__name__}: {error}"
    print({k: v for k, v in row.items() if k not in ("strategy",)}, flush=True)
    return row


def irregular(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for name in irregular_networks.CELLS:
        for rewritten in (False, True):
            plain = irregular_networks.cells(name)
            graph = irregular_networks.cells(name, rewritten=rewritten)
            breadth = simulate(plain, irregular_networks.breadth_first(plain)).peak
            row = row_of(f"{name}{', rewritten' if rewritten else ''}", graph, 60, breadth_first=breadth)
            given = simulate(plain, range(len(plain.ops))).peak
            rows.append({**row, "gain_over_unrewritten": given / row["peak"], "rewritten": rewritten})
    for seed in range(3 if quick else 12):
        graph = irregular_networks.randwire(seed)
        breadth = simulate(graph, irregular_networks.breadth_first(graph)).peak
        rows.append(row_of(f"RandWire {seed}", graph, 60, breadth_first=breadth))
    for row in rows:
        row["gain_over_breadth_first"] = row["breadth_first"] / row["peak"]
    return rows


def _graph_of(step: Any, *, optimizer: bool) -> Graph:
    from memfit.frameworks.torch.capture import capture
    from memfit.frameworks.torch.program import program_of

    captured = capture(step)
    trained = tuple(range(len(captured.trained))) if optimizer and captured.training else ()
    return program_of(captured.module, captured.names, optimizer=trained).graph


def _hollow(build: Callable[[], Any]) -> Any:
    """A model whose parameters are never touched: no bytes but addresses."""
    import torch

    with torch.device("meta"):
        model = build()
    return model.to_empty(device="cpu")


def _alexnet() -> Any:
    from torch import nn

    sizes = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    layers: list[Any] = []
    for index, (a, b, kernel, stride, padding) in enumerate(sizes):
        layers += [nn.Conv2d(a, b, kernel, stride, padding), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(3, 2)] if index in (0, 1, 4) else []
    layers += [nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 1000))


def _vgg16() -> Any:
    from torch import nn

    layers: list[Any] = []
    width = 3
    for block, (channels, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        for _ in range(count):
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(inplace=True)]
            width = channels
        layers.append(nn.MaxPool2d(2))
        del block
    layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    return nn.Sequential(*layers, nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 1000))


def _deberta(layers: int) -> Any:
    from transformers import DebertaV2Config, DebertaV2ForQuestionAnswering

    return DebertaV2ForQuestionAnswering(DebertaV2Config(num_hidden_layers=layers))


def inductor(quick: bool) -> list[dict[str, Any]]:
    import torch
    from torch.nn.functional import cross_entropy

    from memfit.ir.step import Step

    def images(build: Callable[[], Any], batch: int) -> Any:
        target = torch.zeros(batch, dtype=torch.long)
        return Step(
            model=_hollow(build), inputs=torch.empty(batch, 3, 224, 224), loss=lambda out: cross_entropy(out, target)
        )

    def questions(layers: int) -> Any:
        ids = torch.zeros(1, 512, dtype=torch.long)
        place = torch.zeros(1, dtype=torch.long)
        inputs = {"input_ids": ids, "start_positions": place, "end_positions": place}
        return Step(model=_hollow(lambda: _deberta(layers)), inputs=inputs, loss=lambda out: out.loss)

    published = {"AlexNet 128": 1.19, "VGG-16 64": 1.15, "DeBERTa-v2 1": 1.10, "AlexNet 32": 1 / (1 - 0.149)}
    cases: list[tuple[str, Callable[[], Any]]] = [
        ("AlexNet 128", lambda: images(_alexnet, 128)), ("AlexNet 32", lambda: images(_alexnet, 32)),
        ("VGG-16 64", lambda: images(_vgg16, 64)), ("DeBERTa-v2 1", lambda: questions(2 if quick else 24)),
    ]  # fmt: skip
    rows = []
    for name, make in cases:
        try:
            step = make()
            for optimizer in (False, True):
                graph = _graph_of(step, optimizer=optimizer)
                kind = "optimizer" if optimizer else "gradients kept"
                rows.append(row_of(f"{name}, {kind}", graph, 60, published_total=published[name]))
        except Exception as error:
            rows.append({"graph": name, "missing": f"{type(error).__name__}: {error}"})
            print(rows[-1], flush=True)
    return rows


def zoo(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for name in ZOO[: 4 if quick else None]:
        for train in (True, False):
            try:
                graph = _graph_of(_zoo_member(name)(train=train), optimizer=True)
            except Exception as error:
                print(name, type(error).__name__, error, flush=True)
                continue
            rows.append(row_of(f"{name}, {'training' if train else 'inference'}", graph, 30))
    return rows


def _zoo_member(name: str) -> Any:
    import zoo
    import zoo_further
    import zoo_vision

    return next(getattr(module, name) for module in (zoo, zoo_further, zoo_vision) if hasattr(module, name))


def recorded(quick: bool) -> list[dict[str, Any]]:
    del quick
    return [
        row_of(path.name.removesuffix(".json.gz"), Graph.from_json(json.loads(gzip.decompress(path.read_bytes()))), 30)
        for path in sorted((HERE / "instances").glob("*.json.gz"))
    ]


def shapes(quick: bool) -> list[dict[str, Any]]:
    def kinds() -> Iterator[tuple[str, Callable[[int], Graph]]]:
        for ops in (20, 40):
            for reach in (5, 10, ops):
                yield f"random, {ops} ops, reach {reach}", lambda seed, o=ops, r=reach: wired(seed, o, r)
        for ops in (40, 100, 300, 1000):
            for shared in (False, True):
                yield (
                    f"series-parallel, {ops} ops, {'one result per fork' if shared else 'one result per branch'}",
                    lambda seed, o=ops, s=shared: series_parallel(seed, o, shared=s),
                )

    rows = []
    for name, make in kinds():
        seconds, proved, ratios = [], 0, []
        count = 5 if quick else 20
        for seed in range(count):
            began = time.process_time()
            found = order_for_peak(make(seed), time_limit=20)
            seconds.append(time.process_time() - began)
            proved += found.optimal
            ratios.append(found.peak / found.bound)
        rows.append({
            "shape": name, "graphs": count, "proved": proved, "worst_peak_over_bound": max(ratios),
            "seconds_median": statistics.median(seconds), "seconds_worst": max(seconds),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def large(quick: bool) -> list[dict[str, Any]]:
    count = 40 if quick else 360
    rows = [row_of("transformer", transformer(count), 60), row_of("convolutional", convolutional(count * 3 // 2), 60)]
    rows.append(row_of("random, reach 12", wired(0, 28 * count, 12), 60))
    return rows


TABLES: dict[str, Callable[[bool], list[dict[str, Any]]]] = {
    "irregular": irregular, "inductor": inductor, "recorded": recorded, "zoo": zoo, "shapes": shapes, "large": large,
}  # fmt: skip


def mean(values: list[float]) -> float:
    return statistics.geometric_mean(values) if values else 1.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer and smaller graphs")
    parser.add_argument("--only", choices=list(TABLES), help="one table, printed and not written")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(TABLES)
    result: dict[str, Any] = {name: TABLES[name](arguments.quick) for name in names}
    rows = [row for name in names for row in result[name] if "gain" in row]
    with_peer = [row for row in rows if "inductor_best" in row]
    cells: list[dict[str, Any]] = result.get("irregular", [])
    result["summary"] = {
        "graphs": len(rows), "proved": sum(row["optimal"] for row in rows),
        "above_given": sum(row["peak"] > row["given"] for row in rows),
        "above_inductor": sum(row["peak"] > row["inductor_best"] for row in with_peer),
        "below_inductor": sum(row["peak"] < row["inductor_best"] for row in with_peer),
        "irregular_gain": mean([r["gain"] for r in cells if not r.get("rewritten")]),
        "irregular_gain_over_breadth_first": mean([r["gain_over_breadth_first"] for r in cells if not r.get("rewritten")]),
        "worst_single_inductor_method": max((max(r["inductor"].values()) / r["given"] for r in with_peer), default=None),
    }  # fmt: skip
    print(result["summary"])
    if not arguments.only:
        record.write("order", result)


if __name__ == "__main__":
    main()
