"""A soak of the pool: ``results/soak.json``. Mixed training and inference with random shapes, threads, forked workers, tenants.

Four threads draw what they do next: train a small network of random shape for a few steps, run inference, work on arrays,
load data through forked workers, fork a child that allocates and frees, be a tenant that asks for more than its budget.
Once a minute all of them rest: everything is dropped and trimmed. At each rest no block of the pool's range may be alive,
and resident memory at rest says what grows: the median of the last third of the rests may not exceed that of the first by
more than 5 % (the first two minutes, in which libraries fill caches of their own, left out). No child may hang or fail.
Exit code 1 where any of it does not hold.

    python benchmarks/soak.py --minutes 30
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Convolutions of ever new shapes fill oneDNN's cache of compiled kernels, 1,024 entries of some 30 KB, for half an hour: the
# growth of that cache is not what is looked for, so it is full before the warm-up ends.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

import numpy as np
import record
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import memfit
from memfit import _core

THREADS = 4
CHILD_SECONDS = 120
WARM_UP = 120  # seconds that growth is not looked at
FORKS = threading.Lock()
"""Held where a process forks, and where a thread draws random numbers. torch's default generator has a lock of its own that
a child inherits as it was at the fork; a loader's worker that seeds it then waits for ever, with or without the pool.
"""


def drawn(make: Callable[[], Any]) -> Any:
    """What ``make`` makes of random numbers."""
    with FORKS:
        return make()


class Samples(Dataset[torch.Tensor]):
    """Random arrays of one shape, made in the worker."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.count, self.shape = count, shape

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(index).standard_normal(self.shape, dtype=np.float32))


def network(draw: random.Random) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    kind = draw.choice(("mlp", "cnn", "transformer"))
    batch = draw.randint(1, 48)
    if kind == "mlp":
        width, depth = draw.randrange(64, 768, 8), draw.randint(1, 5)
        layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
        return nn.Sequential(*layers), lambda: drawn(lambda: torch.randn(batch * 8, width))
    if kind == "cnn":
        channels, size = draw.randrange(4, 24), draw.randrange(16, 64, 4)
        layers = [
            nn.Conv2d(3, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        ]
        return nn.Sequential(*layers), lambda: drawn(lambda: torch.randn(batch, 3, size, size))
    width, length = draw.choice((64, 128, 192)), draw.randint(4, 96)
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, draw.randint(1, 3)), lambda: drawn(
        lambda: torch.randn(max(1, batch // 4), length, width)
    )


def train(draw: random.Random) -> None:
    model, inputs = drawn(lambda: network(draw))
    optimizer = draw.choice((torch.optim.Adam, torch.optim.SGD))(model.parameters(), lr=1e-3)
    batch = inputs()
    for _ in range(draw.randint(2, 8)):
        optimizer.zero_grad()
        model(batch if draw.random() < 0.7 else inputs()).square().mean().backward()
        optimizer.step()


def infer(draw: random.Random) -> None:
    model, inputs = drawn(lambda: network(draw))
    with torch.inference_mode():
        for _ in range(draw.randint(2, 12)):
            assert bool(model.eval()(inputs()).isfinite().all())


def arrays(draw: random.Random) -> None:
    held = []
    for _ in range(draw.randint(5, 40)):
        size = int(2 ** draw.uniform(4, 22))
        array = np.zeros(size, np.float32) if draw.random() < 0.5 else np.full(size, 3, np.float32)
        expected = float(array[0])
        if draw.random() < 0.2:
            array.resize(size + draw.randint(0, size), refcheck=False)
        array[:size] += 1
        held.append((array, size, expected + 1))
        if len(held) > 6:
            array, size, value = held.pop(draw.randrange(len(held)))
            assert bool((array[:size] == value).all()), "an array has changed"


def load(draw: random.Random) -> None:
    shape = (draw.randint(1, 3), draw.randrange(16, 128), draw.randrange(16, 128))
    loader = DataLoader(
        Samples(24, shape), batch_size=8, num_workers=2, multiprocessing_context="fork", timeout=CHILD_SECONDS
    )
    batches = drawn(lambda: iter(loader))
    total = sum(float(batch.square().mean()) for batch in batches)
    assert 1.5 < total < 5, f"the data that workers sent is wrong ({total})"


def fork(draw: random.Random) -> None:
    seed = draw.random()
    with FORKS:
        child = os.fork()
    if child == 0:
        code = 1
        try:
            for turn in range(3):
                arrays(random.Random(seed + turn))
                torch.ones(300, 300).matmul(torch.ones(300, 300))
            code = 0
        finally:
            os._exit(code)
    until = time.monotonic() + CHILD_SECONDS
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, f"a forked child ended with status {status}"
            return
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("a forked child hangs")


KINDS: list[tuple[Callable[[random.Random], None], int]] = [
    (train, 40),
    (infer, 35),
    (arrays, 20),
    (load, 2),
    (fork, 3),
]


def tenant(draw: random.Random) -> None:
    """A tenant that asks for more than its budget is refused, and nobody else notices."""
    asked = draw.randint(2, 24)
    with memfit.domain(f"soak-{threading.get_ident()}", budget="8MiB"):
        held = []
        try:
            held.extend(torch.ones(1 << 18) for _ in range(asked))
            assert asked <= 8, "a budget was not kept"
        except memfit.DomainBudgetError:
            assert asked > 8, "a budget that is kept was refused"
        del held


KINDS.append((tenant, 5))


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--rest", type=float, default=60.0, help="seconds between two rests")
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    torch.set_num_threads(1)
    memfit.pool.install(give_back_after=5)
    stop, counted, failures = threading.Event(), Counter[str](), list[str]()

    turn = threading.Condition()
    resting, wanted = 0, False

    def rest() -> None:
        """Wait here while a rest is wanted."""
        nonlocal resting
        with turn:
            resting += 1
            turn.notify_all()
            turn.wait_for(lambda: not wanted)
            resting -= 1

    def work(number: int) -> None:
        draw = random.Random(asked.seed * 1000 + number)
        kinds, weights = zip(*KINDS, strict=True)
        while not stop.is_set():
            kind = draw.choices(kinds, weights)[0]
            try:
                kind(draw)
            except Exception:
                failures.append(f"{kind.__name__}: {traceback.format_exc(limit=3)}")
                if len(failures) > 20:
                    stop.set()
            counted[kind.__name__] += 1
            if wanted:
                rest()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    begun = time.monotonic()
    end = begun + 60 * asked.minutes
    for thread in threads:
        thread.start()
    rests: list[dict[str, float]] = []
    highest = 0
    while time.monotonic() < end and not stop.is_set():
        until = min(end, time.monotonic() + asked.rest)
        while time.monotonic() < until and not stop.is_set():
            time.sleep(0.5)
            highest = max(highest, resident())
        with turn:
            wanted = True
            turn.wait_for(lambda: resting == THREADS or stop.is_set(), timeout=3 * CHILD_SECONDS)
            gc.collect()
            memfit.pool.trim()
            now = memfit.pool.statistics()
            rests.append(
                {"seconds": time.monotonic() - begun, "resident": resident(), "live_blocks": now.live_blocks,
                 "touched": now.touched, "reserved": now.reserved, "small_live": now.small_live, "plans": now.plans}
            )  # fmt: skip
            wanted = False
            turn.notify_all()
        print(f"{rests[-1]} {dict(counted)} {len(failures)} failures", flush=True)
    stop.set()
    for thread in threads:
        thread.join()
    gc.collect()
    memfit.pool.trim()
    last = memfit.pool.statistics()
    settled = [at["resident"] for at in rests if at["seconds"] > WARM_UP] or [resident()]
    third = max(1, len(settled) // 3)
    first_third, last_third = statistics.median(settled[:third]), statistics.median(settled[-third:])
    result: dict[str, Any] = {
        "minutes": (time.monotonic() - begun) / 60, "threads": THREADS, "done": dict(counted), "failures": failures,
        "rests": len(rests), "blocks_alive_at_rests": sum(at["live_blocks"] for at in rests),
        "blocks_alive_at_the_end": last.live_blocks, "living": [size for _, size in _core.pool_living()],
        "small_bytes_alive_at_the_end": last.small_live,
        "small_blocks_alive_at_the_end": last.small_allocations - last.small_frees,
        "resident_first_third": first_third, "resident_last_third": last_third, "growth": last_third / first_third,
        "highest_resident": highest, "statistics": last.to_json(), "samples": rests,
    }  # fmt: skip
    memfit.pool.uninstall()
    accounted = result["blocks_alive_at_rests"] == 0 and last.live_blocks == 0 and last.small_live < 1 << 20
    holds = not failures and accounted and last_third <= 1.05 * first_third
    result["holds"] = holds
    path = record.write("soak", result)
    print(
        f"{'holds' if holds else 'DOES NOT HOLD'}: {path.name}; {dict(counted)}; growth {result['growth']:.3f}; {last}"
    )
    for failure in failures[:5]:
        print(failure)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
