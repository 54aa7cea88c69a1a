"""Graphs that outlive their step: ``retained-graph`` after its last backward, ``detach`` for results kept with a graph."""

from __future__ import annotations

from memfit.frameworks.torch.lint.changes import Unretained, Unsaved
from memfit.frameworks.torch.lint.finding import Finding, Seen, common, is_own


def retained(seen: Seen) -> list[Finding]:
    """``retain_graph=True`` at a backward call after which nobody asks for the same graph again."""
    findings = []
    for call in seen.watch.backwards:
        if call.step != seen.last or not call.retain_graph or call.create_graph:
            continue
        through = [save for save in seen.saves if call.number in save.used_by]
        if not through or any(max(save.used_by) > call.number for save in through):
            continue
        findings.append(
            Finding(
                "retained-graph", seen.own_line(call.lines), "the graph is retained, and no later backward pass asks for it",
                "leave out retain_graph=True", "", seen.bytes_of(through), change=Unretained([call.position]),
            )
        )  # fmt: skip
    return findings


def undetached(seen: Seen) -> list[Finding]:
    """Results that a step leaves behind with their graph, more after each step, or with what the graph saved."""
    kept = seen.watch.kept
    left = [save for save in seen.watch.left[seen.last] if not save.used_by] if seen.watch.left else []
    held = seen.bytes_of(left)
    grows = len(kept) > 2 and kept[-3].nodes < kept[-2].nodes < kept[-1].nodes
    if not grows and not (held and kept and kept[-1].count):
        return []
    last = kept[-1]
    line = last.line if is_own(last.line) else seen.own_line(common(save.lines for save in left))
    shape = "x".join(map(str, last.shape)) or "scalar"
    more = last.count - kept[-2].count if len(kept) > 1 else last.count
    what = f"a result ({shape}) is kept after the step together with its graph"
    if grows:
        what += f": {more} more a step" if more > 0 else f", which grows by {last.nodes - kept[-2].nodes} nodes a step"
    fix = "keep .detach() of it, or .item() of a scalar"
    change = Unsaved([save.number for save in left]) if left else None
    held = held or last.nbytes * max(more, 1)
    return [Finding("detach", line, what, fix, "", held, change=change, a_step=True, wrong=grows)]
