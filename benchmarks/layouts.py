"""One program's memory paged, segmented, planned and cached, side by side: ``results/layouts.json``.

    python benchmarks/layouts.py

The two recorded training traces of ``instances/replay`` (fixed and variable shapes) at their own size and 64 times as
large, as on a GPU, and the captured steps of ``instances``. All figures are projected; CPU seconds are of the whole verb.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from allocator_policies import load
from record import write

import memfit

INSTANCES = Path(__file__).parent / "instances"
PAGES = ("4KiB", "64KiB", "2MiB")
GRAPHS = ("r", "g-adamw", "resnet50")


def row(name: str, target: Any) -> dict[str, Any]:
    """All layouts of one program."""
    found = memfit.compare_layouts(target, pages=PAGES, time_limit=20.0).to_json()
    print(f"{name}: {found['blocks']} buffers, {found['peak_live'] / 2**20:.1f} MiB live, {found['seconds']:.1f} s")
    for layout in found["layouts"]:
        print(
            f"    {layout['title']:26} reserved {layout['peak_reserved'] / 2**20:9.1f} MiB  inside "
            f"{layout['internal'] / 2**20:8.2f}  between {layout['external'] / 2**20:8.2f}  lost "
            f"{100 * layout['fragmentation']:5.2f} %  metadata {layout['metadata'] / 2**10:9.1f} KiB"
        )
    return {**found, "target": name, "notes": []}


def main() -> None:
    rows = []
    for trace in ("fixed", "variable"):
        for scale in (1, 64):
            rows.append(row(f"{trace} x{scale}", load(INSTANCES / "replay" / f"{trace}.npz", scale)))
    rows += [row(name, INSTANCES / f"{name}.json.gz") for name in GRAPHS]
    write("layouts", {"programs": rows})


if __name__ == "__main__":
    main()
