"""Graphs that no backward pass visits: ``no-grad`` for a whole model, ``unused-graph`` for a part, ``create-graph``.

A module call counts where every save below it, parameters aside, was never asked for by backward. The outermost such call
is the finding; its line is where the program calls it. What lies in no such call (plain functions) goes by its line.
"""

from __future__ import annotations

from collections import defaultdict

from memfit.frameworks.torch.lint.changes import Unretained, Unsaved, WithoutGraph
from memfit.frameworks.torch.lint.finding import LEAST, Finding, Seen, common
from memfit.frameworks.torch.lint.watch import Call, Line, Save


def unvisited(seen: Seen) -> list[Finding]:
    """Saves that backward never asks for, by the call that made them."""
    unused = [save for save in seen.saves if not save.used_by and save.backward < 0]
    if not unused:
        return []
    findings: list[Finding] = []
    whole = _outermost(seen)
    by_place: dict[tuple[Line, ...], list[Call]] = defaultdict(list)
    for call in whole:
        by_place[call.lines].append(call)
    for lines, calls in by_place.items():
        findings += _of_calls(seen, lines, calls)
    inside = {id(save) for call in whole for save in call.saves}
    return findings + _of_lines(seen, [save for save in unused if id(save) not in inside])


def _outermost(seen: Seen) -> list[Call]:
    """The outermost calls whose saves are all unused."""
    found: list[Call] = []
    taken: set[int] = set()
    for call in seen.calls:
        if id(call.parent) in taken:
            taken.add(id(call))
        elif call.saves and not any(save.used_by for save in call.saves):
            taken.add(id(call))
            found.append(call)
    return found


def _of_calls(seen: Seen, lines: tuple[Line, ...], calls: list[Call]) -> list[Finding]:
    saves = [save for call in calls for save in call.saves]
    held = seen.bytes_of(saves)
    name = seen.named(calls[0].module)
    root = calls[0].parent is None
    change = WithoutGraph([call.number for call in calls], grad=False)
    if root:
        what = f"{name} runs with a graph that no backward pass visits"
        fix = "run it under torch.no_grad(), or torch.inference_mode() where nothing of it is trained later"
        return [Finding("no-grad", seen.own_line(lines), what, fix, name, held, change=change)]
    if held < LEAST:
        return []
    what = f"nothing that {name} computes here reaches the loss"
    fix = "leave it out, or run it under torch.no_grad()"
    return [Finding("unused-graph", seen.own_line(lines), what, fix, name, held, change=change)]


def _of_lines(seen: Seen, saves: list[Save]) -> list[Finding]:
    """Plain functions: the saves of lines at which none is used."""
    used = {save.lines for save in seen.saves if save.used_by}
    alone = [save for save in saves if save.lines and save.lines not in used]
    by_caller: dict[tuple[Line, ...], list[Save]] = defaultdict(list)
    for save in alone:
        by_caller[save.lines[:1] if save.call is None else save.lines].append(save)
    findings = []
    for group in by_caller.values():
        held = seen.bytes_of(group)
        if held < LEAST:
            continue
        line = seen.own_line(common(save.lines for save in group))
        change = Unsaved([save.number for save in group])
        root = group[0].call is None and not any(save.used_by for save in seen.saves)
        what = "what is computed here has a graph that no backward pass visits"
        fix = "compute it under torch.no_grad(), or from detached values"
        findings.append(Finding("no-grad" if root else "unused-graph", line, what, fix, "", held, change=change))
    return findings


def graph_of_gradients(seen: Seen) -> list[Finding]:
    """A backward pass with ``create_graph`` whose own graph nothing differentiates."""
    findings = []
    for call in seen.watch.backwards:
        made = [save for save in seen.saves if save.backward == call.number]
        if call.step != seen.last or not call.create_graph or any(save.used_by for save in made):
            continue
        findings.append(
            Finding(
                "create-graph", seen.own_line(call.lines), "gradients are given a graph that nothing differentiates",
                "leave out create_graph=True", "", seen.bytes_of(made), change=Unretained([call.position]),
            )
        )  # fmt: skip
    return findings
