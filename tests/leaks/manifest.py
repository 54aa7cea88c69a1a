"""The leak cases of this folder, read from the scripts themselves: each file's docstring says what leaks, and who holds it.

A case is a plain script that takes its number of steps as its only argument. The first line of its docstring says what
happens; then ``name: value`` lines:

    source   the public thread that the case is rebuilt from, as owner/repository#number (the code is written anew)
    leaks    what grows
    holder   a regular expression for the name by which a person would recognise who holds it: attribute, global, table, cache
    kind     one of KINDS
    birth    in words, the line that made what leaks; the line itself ends with ``# born here``
    steps    the number of steps at which ten seconds and 300 MB suffice, and the growth is plain
    seen     ``no`` for cases that were kept away while the engine was built: its result on them is reported apart
    needs    packages beyond torch, numpy and matplotlib, separated by commas

Files whose name begins with ``fine_`` are no leaks: they grow and level off, or grow by intent; their holder is ``none``.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
BIRTH_MARK = "# born here"

KINDS = {
    "graph-kept": "a loss or a metric kept with its autograd graph",
    "recurrent-state": "state carried over without detach",
    "retained-graph": "graphs kept by retain_graph",
    "create-graph": "leaf and gradient in a cycle through create_graph",
    "function-context": "values kept on or by a custom Function's context",
    "hook": "hooks never removed, closing over their module, or collecting",
    "reference-cycle": "cycles while the collector does not run",
    "lru-cache": "a cache without a bound on methods",
    "exception": "exceptions that hold frames",
    "container": "a list, dict or set that only grows",
    "metric-state": "the state of a metric that is never reset",
    "view": "a small view of a large storage",
    "replay-buffer": "stored experience with its graph",
    "figures": "figures never closed",
    "request-cache": "state a request, never dropped",
    "compile-cache": "a compile or a trace a step",
    "copy-on-write": "pages copied into worker processes",
    "native": "native memory without a Python object",
    "thread-local": "threads that never end, with their locals",
    "weakref-callback": "callbacks that keep what they wait for",
    "logging": "handlers and loggers",
    "task": "tasks that never end",
    "context-variable": "copies of a context",
    "subprocess": "child processes and their pipes",
    "generator": "generators put aside",
    "class-registry": "classes, types and modules that are registered",
    "growing-object": "one object that is replaced by a larger one, or grows itself",
}


@dataclass(frozen=True)
class Case:
    """One script: where it is, and what a person would say of it."""

    name: str
    path: Path
    title: str
    source: str
    leaks: str
    holder: str  # a regular expression; "" for what is no leak
    kind: str
    birth: int  # line number; 0 for what is no leak
    steps: int
    seen: bool = True
    needs: tuple[str, ...] = field(default=())

    @property
    def fine(self) -> bool:
        """Whether nothing leaks."""
        return not self.holder

    def missing(self) -> list[str]:
        """The packages that it needs and that are not here."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def read(path: Path) -> Case:
    """The case that a script describes; raises ValueError, saying what is wrong with its docstring."""
    text = path.read_text()
    documented = ast.get_docstring(ast.parse(text)) or ""
    title, _, rest = documented.partition("\n")
    given = dict(re.findall(r"^(\w+): (.+)$", rest, re.MULTILINE))
    fine = path.name.startswith("fine_")
    wanted = {"source", "holder", "steps"} | (set() if fine else {"leaks", "kind", "birth"})
    if wanted - set(given):
        raise ValueError(f"{path.name} does not say: {', '.join(sorted(wanted - set(given)))}")
    if fine != (given["holder"] == "none"):
        raise ValueError(f"{path.name}: a holder, or the prefix fine_, and not both")
    if not fine and given["kind"] not in KINDS:
        raise ValueError(f"{path.name}: no kind is called {given['kind']}")
    born = [number for number, line in enumerate(text.splitlines(), 1) if BIRTH_MARK in line]
    if len(born) != (0 if fine else 1):
        raise ValueError(f"{path.name}: {len(born)} lines are marked {BIRTH_MARK!r}")
    return Case(
        path.stem, path, title, given["source"], given.get("leaks", ""), "" if fine else given["holder"],
        given.get("kind", ""), born[0] if born else 0, int(given["steps"]),
        given.get("seen") != "no",
        tuple(name.strip() for name in given.get("needs", "").split(",") if name.strip()),
    )  # fmt: skip


def cases(folder: Path = HERE) -> list[Case]:
    """All cases of a folder by name, the leaks first."""
    found = [
        read(path) for path in sorted(folder.glob("*.py")) if path.name != "manifest.py" and path.name[:5] != "test_"
    ]
    return sorted(found, key=lambda case: (case.fine, case.name))
