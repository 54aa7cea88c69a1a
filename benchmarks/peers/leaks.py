"""One leak case under one peer, in this process: ``peers/leaks.py TOOL SCRIPT STEPS`` prints what it says, as JSON.

Every tool is used as its own documentation would have a person use it on a loop: start after a third of the steps, look
after the last step and before anything is torn down. For that the script gets a ``range`` of its own, which calls back; the
script is not changed. What a tool says is then the text that a person would read of its first five answers:

    resident      memory of this process and its children, at both moments: is there growth at all?
    memray        a tracker between the moments; blocks not freed, largest stack first, with the source line of each frame
    tracemalloc   compare_to(..., "lineno") of two snapshots, 25 frames, largest first
    objgraph      growth() between the moments; of each type that grew, a back-reference chain from a new object to a module
"""

from __future__ import annotations

import gc
import json
import linecache
import os
import random
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FIRST = 5  # answers that a person reads
SMALL = 1 << 20  # bytes below which nobody looks: the limit of pytest-memray's own examples


def resident() -> int:
    """Bytes of this process and its children: resident here, proportional there."""
    total = 0
    for process in ["self", *Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]:
        wanted = "Rss:" if process == "self" else "Pss:"
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # ended meanwhile
            continue
        total += 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(wanted))
    return total


def source_line(file: str, line: int) -> str:
    return f"{Path(file).name}:{line} {linecache.getline(file, line).strip()}"


class Resident:
    """Memory as the system counts it."""

    def start(self) -> None:
        gc_state = gc.isenabled()
        if gc_state:
            gc.collect()
        self.before = resident()

    def stop(self) -> None:
        if gc.isenabled():
            gc.collect()
        self.grown = resident() - self.before

    def answer(self, script: str) -> dict[str, Any]:
        return {"bytes": self.grown, "answers": []}


class Memray:
    """Blocks allocated between the moments and not freed. It has to be on from the start, to know the frames."""

    def __init__(self) -> None:
        import memray

        self.file = Path(tempfile.mkdtemp()) / "records.bin"
        self.tracker = memray.Tracker(self.file)
        self.tracker.__enter__()

    def start(self) -> None:
        self.began = time.time()
        time.sleep(0.05)  # memray puts down the time every 10 ms

    def stop(self) -> None:
        gc.collect() if gc.isenabled() else None
        self.tracker.__exit__(None, None, None)

    def answer(self, script: str) -> dict[str, Any]:
        import memray

        stacks: dict[tuple[tuple[str, str, int], ...], int] = {}
        with memray.FileReader(self.file) as reader:
            times = [one.time for one in reader.get_memory_snapshots()]
            first = sum(one <= 1000 * (self.began + 0.02) for one in times)
            for record in reader.get_temporal_allocation_records(merge_threads=True):
                left = sum(
                    one.n_bytes for one in record.intervals
                    if one.allocated_before_snapshot >= first and one.deallocated_before_snapshot is None
                )  # fmt: skip
                if left:
                    stack = tuple(record.stack_trace())
                    stacks[stack] = stacks.get(stack, 0) + left
        largest = sorted(stacks.items(), key=lambda one: -one[1])[:FIRST]
        answers = [
            {"bytes": size, "text": [f"{name} {source_line(file, line)}" for name, file, line in stack]}
            for stack, size in largest
        ]
        return {"bytes": sum(stacks.values()), "answers": answers}


class Tracemalloc:
    """The difference of two snapshots of the Python heap."""

    def start(self) -> None:
        import tracemalloc

        tracemalloc.start(25)
        self.before = tracemalloc.take_snapshot()

    def stop(self) -> None:
        import tracemalloc

        gc.collect() if gc.isenabled() else None
        self.after = tracemalloc.take_snapshot()
        tracemalloc.stop()

    def answer(self, script: str) -> dict[str, Any]:
        import tracemalloc

        own = [tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, linecache.__file__)]
        before, after = self.before.filter_traces(own), self.after.filter_traces(own)
        answers = []
        for one in after.compare_to(before, "traceback"):
            if one.size_diff <= 0 or len(answers) == FIRST:
                break
            answers.append({"bytes": one.size_diff, "text": [source_line(f.filename, f.lineno) for f in one.traceback]})
        grown = sum(one.size_diff for one in after.compare_to(before, "filename"))
        return {"bytes": grown, "answers": answers}


class Objgraph:
    """Types of which there are more, and who refers to one of the new ones."""

    def start(self) -> None:
        import objgraph

        self.peaks: dict[str, int] = {}
        objgraph.growth(limit=None, peak_stats=self.peaks)
        gc.collect()
        self.old = {id(one) for one in gc.get_objects()}

    def stop(self) -> None:
        import objgraph

        gc.collect() if gc.isenabled() else None
        # What this class itself made is no growth of the program's.
        grown = objgraph.growth(limit=FIRST + 1, peak_stats=self.peaks)
        self.found = []
        for name, _, more in grown:
            new = [one for one in objgraph.by_type(name) if id(one) not in self.old and one is not self.__dict__]
            if not new:
                continue
            chosen = random.Random(0).choice(new)
            chain = objgraph.find_backref_chain(chosen, objgraph.is_proper_module, extra_ignore=(id(new), id(self)))
            self.found.append((name, more, self.described(chain)))
        self.total = sum(more for _, _, more in grown)

    def described(self, chain: list[Any]) -> list[str]:
        texts = []
        for one, inner in zip(chain, [*chain[1:], None], strict=True):
            edge = ""
            if isinstance(one, dict):
                edge = next((f"[{key!r:.60}]" for key, value in one.items() if value is inner), "")
            elif inner is not None and hasattr(one, "__dict__"):
                edge = next((f".{key}" for key, value in vars(one).items() if value is inner), "")
            name = getattr(one, "__name__", getattr(one, "__qualname__", ""))
            texts.append(f"{type(one).__name__} {name}{edge}")
        return texts

    def answer(self, script: str) -> dict[str, Any]:
        answers = [{"bytes": more, "text": [f"{name} +{more}", *chain]} for name, more, chain in self.found[:FIRST]]
        return {"bytes": self.total, "answers": answers}


TOOLS: dict[str, Callable[[], Any]] = {
    "resident": Resident, "memray": Memray, "tracemalloc": Tracemalloc, "objgraph": Objgraph,
}  # fmt: skip


def counted(steps: int, begin: Callable[[], None], end: Callable[[], None]) -> type:
    """A range that calls back after a third of its steps and after the last, where it is the range over all steps."""

    def walk() -> Iterator[int]:
        for step in range(steps):
            if step == max(1, steps // 3):
                begin()
            yield step
        end()

    class Counted:
        def __new__(cls, *bounds: int) -> Any:
            return walk() if bounds == (steps,) else range(*bounds)

    return Counted


def main() -> None:
    name, script, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tool = TOOLS[name]()
    sys.argv = [script, str(steps)]
    output = os.dup(1)
    os.dup2(2, 1)  # what the script prints is not the answer
    runpy.run_path(script, init_globals={"range": counted(steps, tool.start, tool.stop)}, run_name="__main__")
    sys.stderr = sys.__stderr__
    os.write(output, json.dumps(tool.answer(script)).encode() + b"\n")
    sys.stdout.flush()
    os._exit(0)  # threads that wait for ever are part of some cases


if __name__ == "__main__":
    main()
