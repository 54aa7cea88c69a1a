"""Every leak case of ``tests/leaks`` under memfit, memray, tracemalloc and objgraph: who names the holder, who keeps silent.

Each pair of case and tool is a process of its own. How a peer is used and what counts as its answer: ``peers/leaks.py``; of
memfit the first three findings count. A verdict is the first of

    holder       an answer names who holds what leaks, by the regular expression in the case's docstring. An answer of memray
                 or tracemalloc names the holder if the source line of the script in which its stack ends does, as a person
                 reads that line; one of objgraph if its chain does
    birth line   an answer names the line that made what leaks
    growth only  growth is reported, and no answer helps
    nothing      no growth is reported

A peer's answer counts where it accounts for a tenth of the growth that the system sees (objgraph: for an object in three
steps): nobody looks for 20 MB at a line of 2 KB. A look-alike is flagged if memfit says ``leaking: true``; if memray or
tracemalloc count more than 1 MiB between the moments (the limit that leak tests with memray set); if objgraph shows a type
that grew by one in three steps.

Run: ``python benchmarks/leak_cases.py [--memfit PATH] [--only NAME ...] [--tools ...] [--folder FOLDER ...]``; with ``--keep``
other tools' answers are taken from the last result.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import record
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
CASES = HERE.parent / "tests" / "leaks"
sys.path.insert(0, str(CASES))
import manifest  # noqa: E402

TOOLS = ("memfit", "memray", "tracemalloc", "objgraph", "resident")
BLOCKS = ("resident", "memray", "tracemalloc", "objgraph", "memfit")  # the order in which they are measured
FINDINGS = 3  # of memfit, that count
SMALL = 1 << 20
ORDER = ("holder", "birth line", "growth only", "nothing")


def run(command: list[str], limit: float = 400.0) -> tuple[dict[str, Any] | None, float, str]:
    """What a process printed as JSON, the CPU seconds it took, and what went wrong."""
    before = os.times()
    try:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment)
    except subprocess.TimeoutExpired:
        return None, limit, "no answer within the limit"
    after = os.times()
    seconds = after.children_user - before.children_user + after.children_system - before.children_system
    try:
        return json.loads(done.stdout), seconds, ""
    except json.JSONDecodeError:
        return None, seconds, done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else "no output"


def named(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def line_of(text: str, file: str) -> int:
    found = re.search(re.escape(file) + r":(\d+)", text)
    return int(found[1]) if found else 0


def of_peer(case: manifest.Case, tool: str, said: dict[str, Any], growth: int) -> dict[str, Any]:
    """The verdict on what a peer printed; ``growth``: bytes by which the process grew."""
    file = case.path.name
    if tool == "resident":
        return {"verdict": "growth only" if said["bytes"] > SMALL else "nothing", "bytes": said["bytes"]}
    enough = case.steps // 3 if tool == "objgraph" else SMALL // 8 if tool == "tracemalloc" else SMALL
    flagged = said["bytes"] > (case.steps // 3 if tool == "objgraph" else SMALL)
    if tool == "objgraph":
        flagged = any(answer["bytes"] >= case.steps // 3 for answer in said["answers"])
    holder = birth = False
    counts = case.steps // 3 if tool == "objgraph" else growth // 10
    for answer in said["answers"]:
        if answer["bytes"] < counts:
            continue
        texts = answer["text"]
        if tool != "objgraph":
            # Innermost last for tracemalloc, first for memray: the person's own line is the one nearest to the allocation.
            own = [text for text in texts if f"{file}:" in text]
            own = own[-1:] if tool == "tracemalloc" else own[:1]
            birth |= any(line_of(text, file) == case.birth for text in own)
            texts = [text.partition(f"{file}:")[2].partition("#")[0] for text in own]
        holder |= bool(case.holder) and any(named(case.holder, text) for text in texts)
    grown = said["bytes"] >= enough
    verdict = "holder" if holder else "birth line" if birth else "growth only" if grown else "nothing"
    return {"verdict": verdict, "flagged": flagged, "bytes": said["bytes"]}


def of_memfit(case: manifest.Case, said: dict[str, Any]) -> dict[str, Any]:
    """The verdict on what ``memfit leaks --json`` printed."""
    if "error" in said:
        return {"verdict": "nothing", "flagged": False, "error": said["error"].get("message", "")[:200]}
    first = said.get("findings", [])[:FINDINGS]
    births = [line_of(str(one.get("birth")), case.path.name) for one in first]
    row = {
        "flagged": said.get("leaking") is True, "leaking": said.get("leaking"),
        "birth_exact": case.birth in births, "births": births,
        "holders": [str(one.get("holder"))[:160] for one in first], "kinds": [one.get("kind") for one in first],
        "bytes_per_step": [one.get("bytes_per_step") for one in first],
    }  # fmt: skip
    return {"verdict": judged(case, row), **row}


def judged(case: manifest.Case, row: dict[str, Any]) -> str:
    """The verdict on memfit's row. A file's name is no holder: cases are often called after theirs."""
    holders = [re.sub(r"\S+\.py:\d+", "", text) for text in row.get("holders", [])]
    if case.holder and any(named(case.holder, text) for text in holders):
        return "holder"
    return "birth line" if row.get("birth_exact") else "growth only" if row.get("leaking") else "nothing"


def measure(case: manifest.Case, tool: str, memfit: str, growth: int) -> dict[str, Any]:
    """One case under one tool."""
    if tool == "memfit":
        command = [memfit, "leaks", "--json", str(case.path), str(case.steps)]
    else:
        command = [sys.executable, str(HERE / "peers" / "leaks.py"), tool, str(case.path), str(case.steps)]
    began = time.monotonic()
    said, seconds, wrong = run(command)
    spent = {"cpu_seconds": round(seconds, 2), "seconds": round(time.monotonic() - began, 2)}
    if said is None:
        return {"verdict": "nothing", "flagged": False, "error": wrong, **spent}
    return {**(of_memfit(case, said) if tool == "memfit" else of_peer(case, tool, said, growth)), **spent}


def shares(rows: list[dict[str, Any]], tools: list[str]) -> dict[str, Any]:
    """How often each verdict was given, over all cases, over those that were seen while building and those that were not."""
    result: dict[str, Any] = {}
    for tool in tools:
        of_tool: dict[str, Any] = {}
        for name, chosen in (("all", (True, False)), ("seen", (True,)), ("unseen", (False,))):
            leaks = [row for row in rows if not row["fine"] and row["seen"] in chosen and tool in row]
            fine = [row for row in rows if row["fine"] and row["seen"] in chosen and tool in row]
            counts = collections.Counter(row[tool]["verdict"] for row in leaks)
            of_tool[name] = {
                "leaks": len(leaks), **{verdict: counts[verdict] for verdict in ORDER},
                "found": sum(row[tool].get("leaking") is True for row in leaks) if tool == "memfit" else None,
                "fine": len(fine), "flagged": sum(bool(row[tool].get("flagged")) for row in fine),
            }  # fmt: skip
        result[tool] = of_tool
    return result


def draw(rows: list[dict[str, Any]], tools: list[str], console: Console) -> None:
    """The table of verdicts, then the counts."""
    table = Table(title="Leak cases: what each tool says", title_justify="left")
    for column in ("case", "source", *tools):
        table.add_column(column, overflow="fold")
    colours = {"holder": "green", "birth line": "yellow", "growth only": "red", "nothing": "dim red"}
    for row in rows:
        cells = []
        for tool in tools:
            one = row.get(tool)
            if one is None:
                cells.append("-")
            elif row["fine"]:
                cells.append("[red]flagged[/]" if one.get("flagged") else "[green]silent[/]")
            else:
                cells.append(f"[{colours[one['verdict']]}]{one['verdict']}[/]")
        table.add_row(row["case"] + ("" if row["seen"] else " *"), row["source"], *cells)
    console.print(table)
    console.print("* kept away while the engine was built")
    for tool, counts in shares(rows, tools).items():
        for name, one in counts.items():
            verdicts = ", ".join(f"{verdict} {one[verdict]}" for verdict in ORDER)
            console.print(
                f"{tool:12} {name:7} {one['leaks']:3} leaks: {verdicts}; {one['fine']} look-alikes, {one['flagged']} flagged"
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memfit", default=str(Path(sys.executable).with_name("memfit")))
    parser.add_argument("--folder", nargs="*", default=[str(CASES)])
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--tools", nargs="*", default=list(TOOLS))
    parser.add_argument("--keep", action="store_true", help="take the other tools' answers from the last result")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--part", help="write this run's rows to a file, for another run to take with --parts")
    parser.add_argument("--parts", nargs="*", default=[], help="rows of such runs, taken instead of measuring")
    given = parser.parse_args()
    console = Console(width=150, stderr=True)
    found = [case for folder in given.folder for case in manifest.cases(Path(folder))]
    kept: dict[str, dict[str, Any]] = {}
    last = record.RESULTS / "leak-cases.json"
    if given.keep and last.exists():
        kept = {row["case"]: row for row in json.loads(last.read_text())["cases"]}
    parts: dict[str, dict[str, Any]] = {}
    for part in given.parts:
        for row in json.loads(Path(part).read_text()):
            parts.setdefault(row["case"], {}).update({key: row[key] for key in TOOLS if key in row})
    rows: list[dict[str, Any]] = []
    for case in found:
        if given.only and case.name not in given.only:
            continue
        row = {**kept.get(case.name, {}), **parts.get(case.name, {})}
        row.update({"case": case.name, "source": case.source, "kind": case.kind, "fine": case.fine, "seen": case.seen})
        if case.missing():
            console.print(f"{case.name}: skipped, without {', '.join(case.missing())}")
            continue
        for tool in (name for name in BLOCKS if name in given.tools and name not in parts.get(case.name, {})):
            row[tool] = measure(case, tool, given.memfit, row.get("resident", {}).get("bytes", 0))
            one = row[tool]
            verdict = ("flagged" if one.get("flagged") else "silent") if case.fine else one["verdict"]
            extra = one.get("error") or (one.get("holders") if tool == "memfit" else "")
            console.print(
                f"{case.name:28} {tool:12} {verdict:12} {one['cpu_seconds']:6.1f} s  {extra or ''}", markup=False
            )
        rows.append(row)
        if "memfit" in row:
            row["memfit"]["verdict"] = judged(case, row["memfit"])
        if given.part:
            Path(given.part).write_text(json.dumps(rows))
        elif not given.no_record:
            keep(rows)
    tools = [tool for tool in TOOLS if any(tool in row for row in rows)]
    draw(rows, tools, Console(width=150))


def keep(rows: list[dict[str, Any]]) -> None:
    """Write the result so far: a run takes many minutes."""
    tools = [tool for tool in TOOLS if any(tool in row for row in rows)]
    versions = {name: record.importlib.metadata.version(name) for name in ("objgraph", "memray")}
    record.write("leak-cases", {"peers": versions, "shares": shares(rows, tools), "cases": rows})


if __name__ == "__main__":
    main()
