"""Every allocator policy on the recorded traces: what it reserves, the least it runs on, and events a second.

    python benchmarks/allocator_policies.py [--scale 64]

The traces are those of benchmarks/instances/replay (``replay_traces.py`` records them): a transformer in training with one
shape, and with shapes drawn anew each step. ``--scale`` multiplies every size, which is what the same model would ask for on
a GPU. Speeds are CPU time, the least of several replays, of the kernel and of its Python twin.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import record

from memfit.allocators.policy import Policy
from memfit.allocators.replay import POLICIES, compare
from memfit.api.static_against_dynamic import static_against_dynamic
from memfit.ir.requests import Requests, requests_of_events

TRACES = Path(__file__).parent / "instances" / "replay"
RUNS, TWIN_EVENTS = 7, 10_000


def load(path: Path, scale: int) -> Requests:
    """The Requests of a recorded trace: ``nbytes`` above 0 allocates a block, 0 frees it."""
    with np.load(path) as archive:
        block, nbytes = archive["block"].astype(np.int64), archive["nbytes"].astype(np.int64) * scale
    return requests_of_events(block, np.where(nbytes > 0, nbytes, -1))


def speed(policy: Policy, requests: Requests) -> float:
    """Events a second of CPU time."""
    return len(requests) / min(policy.replay(requests).seconds for _ in range(RUNS))


def twin_speed(policy: Policy, requests: Requests) -> float:
    """The same of the Python twin, on the first events."""
    count = min(TWIN_EVENTS, len(requests))
    columns = ("action", "block", "nbytes", "stream", "pool", "address")
    first = Requests(*(getattr(requests, name)[:count] for name in columns))
    return count / policy.replay(first, twin=True).seconds


def measure(path: Path, scale: int) -> dict[str, Any]:
    """All policies on one trace."""
    requests = load(path, scale)
    results = compare(requests, POLICIES)
    rows = []
    for result in results:
        free = result.unlimited
        rows.append({
            "policy": result.key, "peak_reserved": free.peak_reserved, "fragmentation": round(free.fragmentation, 4),
            "driver_calls": free.driver_calls, "smallest_capacity": result.smallest_capacity,
            "driver_calls_there": result.tight.driver_calls, "events_per_second": round(speed(result.policy, requests)),
            "twin_events_per_second": round(twin_speed(result.policy, requests)),
        })  # fmt: skip
        print("  {policy:18} runs on {smallest_capacity:>14,} reserves {peak_reserved:>14,} ({fragmentation:.1%}), "
              "{events_per_second:>12,} events/s, twin {twin_events_per_second:>10,}".format(**rows[-1]))  # fmt: skip
    static = static_against_dynamic(requests, results, lambda text, done, total: None)
    for contender in static.contenders:
        print(f"  {contender.name:60} {contender.peak:>14,} {contender.seconds_per_event * 1e9:6.1f} ns an event")
    return {
        "trace": path.stem, "scale": scale, "events": len(requests), "peak_live": results[0].unlimited.peak_live,
        "policies": rows, "static_against_dynamic": static.to_json(),
    }  # fmt: skip


def main() -> None:
    """Measure, print, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=64, help="factor of all sizes (64)")
    scale = parser.parse_args().scale
    paths = sorted(TRACES.glob("*.npz"))
    if not paths:
        print(f"no traces in {TRACES}: record them with python benchmarks/replay_traces.py")
        return
    found = []
    for path in paths:
        print(f"{path.stem}, sizes x {scale}")
        found.append(measure(path, scale))
    print(f"wrote {record.write('allocator_policies', {'runs': RUNS, 'traces': found})}")


if __name__ == "__main__":
    main()
