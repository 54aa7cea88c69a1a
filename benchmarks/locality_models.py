"""What ``memfit locality TARGET`` advises for real models, and whether the advice holds when it is followed by hand.

    python benchmarks/locality_models.py [--only NAME ...] [--seconds 20]

Models from transformers and diffusers, built from their configs with random weights, and a classifier as Keras's guides write
it. The answer's own times are medians of runs in turns; then the first piece of advice that needs no compiler is followed in
plain PyTorch, without memfit, and timed in turns with the model as it is (``by_hand``). A model for which nothing is advised
says what was tried.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import record
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import memfit
from memfit import Step


def _picture(model: nn.Module, side: int = 224, batch: int = 1, channels: int = 3) -> Step:
    return Step(model=model.eval(), inputs=torch.randn(batch, channels, side, side))


def resnet50() -> Step:
    from transformers import ResNetConfig, ResNetForImageClassification

    return _picture(ResNetForImageClassification(ResNetConfig()), side=160)


def convnext_tiny() -> Step:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return _picture(ConvNextForImageClassification(ConvNextConfig()), side=128)


def unet() -> Step:
    from diffusers import UNet2DModel

    model = UNet2DModel(
        sample_size=32, block_out_channels=(64, 128, 256), down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), layers_per_block=2,
    )  # fmt: skip
    return Step(model=model.eval(), inputs=(torch.randn(1, 3, 32, 32), torch.tensor(10)))


def mobilenet_v2() -> Step:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    return _picture(MobileNetV2ForImageClassification(MobileNetV2Config(image_size=224)), side=224)


def autoencoder() -> Step:
    from diffusers.models.autoencoders.vae import Decoder

    blocks = ("UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D")
    return _picture(Decoder(4, 3, blocks, (64, 128, 256)), side=16, channels=4)


class Separable(nn.Module):
    """The classifier of Keras's guide "Image classification from scratch" (a small Xception): separable convolutions."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 128, 3, 2, 1), nn.BatchNorm2d(128), nn.ReLU())
        blocks, before = [], 128
        for size in (256, 512, 728):
            body = nn.Sequential(
                nn.ReLU(), *self.separable(before, size), nn.ReLU(), *self.separable(size, size), nn.MaxPool2d(3, 2, 1)
            )
            blocks.append(nn.ModuleList([body, nn.Conv2d(before, size, 1, 2)]))
            before = size
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Sequential(*self.separable(before, 1024), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classes = nn.Linear(1024, classes)

    @staticmethod
    def separable(before: int, size: int) -> list[nn.Module]:
        return [
            nn.Conv2d(before, before, 3, 1, 1, groups=before, bias=False),
            nn.Conv2d(before, size, 1),
            nn.BatchNorm2d(size),
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for body, shortcut in self.blocks:
            x = body(x) + shortcut(x)
        return self.classes(self.last(x))


def keras_xception() -> Step:
    return _picture(Separable(), side=128)


def bert() -> Step:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(num_hidden_layers=2)).eval()
    return Step(model=model, inputs={"input_ids": torch.randint(0, 30000, (1, 128))})


def tuned_classifier() -> Step:
    """Products of large matrices alone: nothing to lay out otherwise, nothing to fuse."""
    layers = [nn.Linear(1024, 1024) for _ in range(4)]
    return Step(model=nn.Sequential(*layers).eval(), inputs=torch.randn(256, 1024))


MODELS: dict[str, Callable[[], Step]] = {
    "resnet-50 (transformers), 160 x 160": resnet50,
    "convnext-tiny (transformers), 128 x 128": convnext_tiny,
    "unet (diffusers), 32 x 32": unet,
    "mobilenet-v2 (transformers), 224 x 224": mobilenet_v2,
    "decoder of an autoencoder (diffusers), 16 x 16 to 64 x 64": autoencoder,
    "small xception (keras guide), 128 x 128": keras_xception,
    "bert, 2 layers (transformers), 128 tokens": bert,
    "four linear layers of 1024, 256 rows": tuned_classifier,
}


def folded(model: nn.Module) -> nn.Module:
    """Every batch norm right after a convolution in a Sequential or a block of ResNet, folded into it."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        children = list(module.named_children())
        for (first, conv), (second, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(conv, norm))
                setattr(module, second, nn.Identity())
    return model


def by_hand(step: Step, advice: str, seconds: float) -> dict[str, Any]:
    """The advice in plain PyTorch beside the model as it is, in turns: medians and quartiles of wall seconds."""
    model = folded(step.model) if "folded" in advice else copy.deepcopy(step.model)
    last = "channels_last" in advice
    if last:
        model = model.to(memory_format=torch.channels_last)

    def inputs(change: bool) -> Any:
        given = step.inputs
        one = lambda x: x.to(memory_format=torch.channels_last) if change and x.dim() == 4 else x  # noqa: E731
        return {k: one(v) for k, v in given.items()} if isinstance(given, dict) else (
            tuple(map(one, given)) if isinstance(given, tuple) else one(given)
        )  # fmt: skip

    def run(which: nn.Module, change: bool) -> float:
        begun = time.perf_counter()
        with torch.no_grad():
            given = inputs(change)
            which(**given) if isinstance(given, dict) else which(*(given if isinstance(given, tuple) else (given,)))
        return time.perf_counter() - begun

    times: tuple[list[float], list[float]] = ([], [])
    run(step.model, False), run(model, last)
    begun = time.perf_counter()
    while len(times[0]) < 5 or (time.perf_counter() - begun < seconds and len(times[0]) < 30):
        times[0].append(run(step.model, False))
        times[1].append(run(model, last))
    before, after = (statistics.quantiles(found, n=4) for found in times)
    return {"before_seconds": before, "after_seconds": after, "speedup": before[1] / after[1], "rounds": len(times[0])}


def measure(make: Callable[[], Step], seconds: float) -> dict[str, Any]:
    torch.manual_seed(0)
    step = make()
    begun = time.perf_counter()
    report = memfit.locality(step, prove=True)
    answer = report.to_json()
    rows = [
        {key: row[key] for key in ("change", "projected_speedup", "measured_speedup", "before_seconds", "after_seconds",
                                   "numerics", "stake_seconds")} for row in answer["advice"]
    ]  # fmt: skip
    found: dict[str, Any] = {
        "commit": record.commit(), "load": os.getloadavg()[0], "seconds": time.perf_counter() - begun,
        "step_seconds": answer["step_seconds"],
        "memory_bound_share": sum(op["seconds"] for op in answer["ops"] if op["bound"] == "memory") / answer["step_seconds"],
        "advice": rows, "notes": answer["notes"],
    }  # fmt: skip
    plain = next(
        (row["change"] for row in rows if "compile" not in row["change"] and "contiguous" not in row["change"]), None
    )
    if plain is not None:
        found["by_hand"] = {"change": plain, **by_hand(step, plain, seconds)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="models whose name begins so; others are kept")
    parser.add_argument("--seconds", type=float, default=20.0, help="of runs in turns by hand, at most")
    options = parser.parse_args()
    path = record.RESULTS / "locality-models.json"
    kept = json.loads(path.read_text())["models"] if path.is_file() else {}
    found = {name: kept[name] for name in MODELS if name in kept}
    for name, make in MODELS.items():
        if options.only and not name.startswith(tuple(options.only)):
            continue
        print(name, flush=True)
        found[name] = measure(make, options.seconds)
        for row in found[name]["advice"]:
            print(f"  {row['measured_speedup']:.2f} x  {row['change']}")
        print(f"  by hand: {found[name].get('by_hand')}\n  notes: {found[name]['notes']}", flush=True)
        record.write(
            "locality-models",
            {"threads": torch.get_num_threads(), "models": {n: found[n] for n in MODELS if n in found}},
        )


if __name__ == "__main__":
    main()
