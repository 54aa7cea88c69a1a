"""Simulators, reuse distances, recommendation, proof and probe of the memory hierarchy, beside their peers.

    python benchmarks/locality.py [--peers PYTHON] [--only PART ...] [--repeats 5]

PYTHON: an interpreter that has pycachesim and py-cpuinfo (or the environment variable LOCALITY_PEERS_PYTHON); Valgrind is
taken where it is installed. A peer that is missing is left out, and the result says so. CPU seconds of one thread, the fastest
of several runs; measured medians for the proof. With --only the other parts are kept from the last result; each part names the
commit that measured it and the load of the machine then.

    exactness       known misses bit by bit; Callgrind counts one more: the line of the stack that its call touches
    trace           recorded accesses in three levels: memfit, pycachesim, Cachegrind
    nest            nests without a trace: every line run simulated, and with jumps over what is proved to repeat
    reuse           exact reuse distances, and what samples of them cost and miss
    recommendation  the search against every tile; machine: the description amd-zen5, so that the answer is the same anywhere
    proof           projected order of variants against measured medians, on the measured machine
    hierarchy       the probe with two other programs running, against the system's word
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import locality_claims as claims
import locality_engines as engines
import record
from locality_peers import Valgrind, pycachesim

PARTS = ("exactness", "trace", "nest", "reuse", "recommendation", "proof", "hierarchy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=os.environ.get("LOCALITY_PEERS_PYTHON"), metavar="PYTHON")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    path = record.RESULTS / "locality.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    found = {name: kept[name] for name in PARTS if name in kept}
    needs_peer = {"exactness", "trace"} & set(options.only)
    with tempfile.TemporaryDirectory(prefix="memfit-") as folder:
        valgrind = Valgrind(Path(folder))
        peer = pycachesim(options.peers) if needs_peer else ""
        run: dict[str, Callable[[], dict[str, Any]]] = {
            "exactness": lambda: engines.exactness(valgrind, peer),
            "trace": lambda: engines.trace_engine(valgrind, peer, options.repeats),
            "nest": lambda: engines.nest_engine(options.repeats),
            "reuse": lambda: engines.reuse_distances(options.repeats),
            "recommendation": lambda: claims.recommendation(options.repeats),
            "proof": claims.proof,
            "hierarchy": lambda: claims.hierarchy(options.peers, 2 * options.repeats),
        }
        versions = {
            "pycachesim": peer["version"] if isinstance(peer, dict) else kept.get("peers", {}).get("pycachesim", peer),
            "valgrind": valgrind.why or valgrind.version(),
        }
        for name in PARTS:
            if name not in options.only:
                continue
            print(name, flush=True)
            found[name] = {"commit": record.commit(), "load": os.getloadavg()[0], **run[name]()}
            ordered = {part: found[part] for part in PARTS if part in found}
            path = record.write("locality", {"repeats": options.repeats, "peers": versions, **ordered})
    print(path)


if __name__ == "__main__":
    main()
