"""What a rule finds, and what all rules look at."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from memfit.frameworks.torch.lint.changes import Change
from memfit.frameworks.torch.lint.watch import Call, Line, Save, Watch
from memfit.ir.step import Step
from memfit.ir.trace import Category, Trace

LEAST = 1024  # bytes at stake below which nobody wants to hear of it, unless the result is wrong too


@dataclass
class Finding:
    """Something that autograd keeps, or a tensor that is larger than it need be, for nothing.

    Attributes:
        held: bytes that rest for nothing, the most at one time; what the rule makes of it, until the advice is traced.
        at_peak: bytes by which the projected peak falls with the advice followed.
        change: the advice, to be traced; or ``without``: the trace as it would be.
        a_step: ``held`` is what each step adds, and stays as the rule has it.
        wrong: results suffer too, so that it is worth saying at any size.
        module: its name, or empty.
    """

    rule: str
    line: Line
    what: str
    fix: str
    module: str = ""
    held: int = 0
    at_peak: int = 0
    change: Change | None = None
    without: Trace | None = None
    a_step: bool = False
    wrong: bool = False

    @property
    def bytes(self) -> int:
        """What is at stake: by how much the peak falls, or, where the peak lies elsewhere, what is held for nothing."""
        return self.at_peak or self.held


@dataclass
class Seen:
    """The step as it was watched: what rules read."""

    watch: Watch
    trace: Trace
    training: bool
    own_loop: bool  # the user's function runs the step: its grad mode, zero_grad and backward calls are the user's
    last: int  # the number of the last step, which stands for every later one
    names: dict[int, str] = field(default_factory=dict)  # modules by id
    origin: Line = ""  # where the function that makes the step begins

    @property
    def step(self) -> Step:
        """The hollow Step that was run."""
        assert self.watch.step is not None
        return self.watch.step

    @cached_property
    def saves(self) -> list[Save]:
        """Saves of the last step."""
        return [save for save in self.watch.saves if save.step == self.last]

    @cached_property
    def calls(self) -> list[Call]:
        """Module calls of the last step."""
        return [call for call in self.watch.calls if call.step == self.last]

    def named(self, module: nn.Module) -> str:
        """A module as its user knows it: its name in the model, else its class."""
        return self.names.get(id(module)) or type(module).__name__

    @cached_property
    def _lasting(self) -> frozenset[int]:
        kinds = (Category.PARAMETERS, Category.BUFFERS, Category.INPUTS)
        return frozenset(i for i, storage in enumerate(self.trace.storages) if storage.category in kinds)

    def bytes_of(self, saves: Iterable[Save]) -> int:
        """Bytes of the storages that these saves keep, each once; parameters, buffers and inputs are there anyway."""
        kept = {save.storage for save in saves if save.storage is not None} - self._lasting
        return sum(self.trace.storages[index].nbytes for index in kept)

    def own_line(self, lines: Sequence[Line]) -> Line:
        """The innermost of the program's lines; where none led there, where the function that makes the step begins."""
        return lines[-1] if lines else self.origin

    def made_at(self, category: Category, labels: Container[str]) -> Line:
        """The program's line that made the first of these storages; as ``own_line`` where a package made it."""
        made = (s.op for s in self.trace.storages if s.category is category and s.label in labels and s.op >= 0)
        return next((self.trace.ops[op].line for op in made if is_own(self.trace.ops[op].line)), self.origin)


def is_own(line: Line) -> bool:
    """Whether a line is in a file of the program: those of packages are shown without their folder."""
    return Path(line.rpartition(":")[0]).is_file()


Rule = Callable[[Seen], list[Finding]]


def common(groups: Iterable[Sequence[Line]]) -> tuple[Line, ...]:
    """The lines that all have in common, from the outermost in.

    >>> common([("a:1", "b:2", "c:3"), ("a:1", "b:2", "d:4")])
    ('a:1', 'b:2')
    """
    shared: tuple[Line, ...] | None = None
    for lines in groups:
        if shared is None:
            shared = tuple(lines)
        length = next((i for i, (a, b) in enumerate(zip(shared, lines, strict=False)) if a != b), None)
        shared = shared[: min(len(shared), len(lines)) if length is None else length]
    return shared or ()


def live_after(trace: Trace) -> Any:
    """Live bytes after each op, int64 by op number; what was there before the first op counts for it."""
    change = np.zeros(max(len(trace.ops), 1), dtype=np.int64)
    np.add.at(change, np.maximum(trace.op, 0), trace.delta)
    return np.cumsum(change)
