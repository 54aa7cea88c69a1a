"""`fit` for JAX: the least recomputation under which the compiled step keeps a byte budget.

The judge is the compiler's own buffer assignment, of each candidate compiled; measuring follows in fresh processes. In
order of cost: the step as it is; the same under the schedule that keeps less alive; loops and parts that keep their matrix
products; parts that keep nothing; as few parts as the budget allows (bisected: bytes fall with their number, as compiled).

Cost: one to about nine compilations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import jax

from memfit.errors import BudgetError
from memfit.frameworks.jax.capture import Capture, capture
from memfit.frameworks.jax.compiled import Compiled, can_be_lean, compile_step
from memfit.frameworks.jax.recompute import Recompute, recomputing
from memfit.frameworks.jax.steps import JaxStep
from memfit.passes.cuts import alive_after, cuts, inner_bytes

Say = Callable[[str, int | None, int | None], None]


@dataclass(frozen=True)
class JaxChoice:
    """``recompute`` that keeps the budget; ``compiled``: the step with it; ``lean``: under the schedule of ``LEAN``.

    ``default``: bytes of the step as it is; ``plain``: without recomputation, same schedule as ``compiled``;
    ``tried``: (what, bytes) of every candidate, in order.
    """

    recompute: Recompute
    lean: bool
    compiled: Compiled
    default: int
    plain: int
    tried: tuple[tuple[str, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What a recipe keeps."""
        return {"recompute": asdict(self.recompute), "lean": self.lean}


@dataclass
class _Search:
    step: JaxStep
    budget: int
    say: Say
    known: dict[tuple[bool, Recompute], Compiled]
    lean: bool = False
    tried: list[tuple[str, int]] = field(default_factory=list)

    def compile(self, what: str, captured: Capture | None, choice: Recompute) -> Compiled:
        """One candidate, compiled; one that was compiled before is taken as it is."""
        key = (self.lean, choice)
        if key not in self.known:
            self.say(f"compiling: {what}", None, None)
            forward = recomputing(captured, choice) if captured is not None else None
            self.known[key] = compile_step(self.step.whole(forward), self.step.arguments(), lean=self.lean)
        found = self.known[key]
        self.tried.append((what, found.peak))
        return found


def fit_step(
    step: JaxStep, budget: int, say: Say | None = None, known: dict[tuple[bool, Recompute], Compiled] | None = None
) -> JaxChoice:  # fmt: skip
    """The choice for ``step``: the first candidate, in order of cost, that keeps the budget as compiled.

    Args:
        budget: bytes of arguments, results and temporaries together.
        known: candidates compiled by earlier calls for the same step; what this call compiles is added.

    Raises:
        BudgetError: no candidate keeps it; ``needed`` is the least that one reached.
        CaptureError: the step cannot be traced.
    """
    search = _Search(step, budget, say or (lambda text, done, total: None), {} if known is None else known)
    default = plain = search.compile("the step as it is", None, Recompute())
    if plain.peak > budget and can_be_lean():
        search.lean = True
        plain = search.compile("everything kept, the lean schedule", None, Recompute())
    if plain.peak <= budget:
        return JaxChoice(Recompute(), search.lean, plain, default.peak, plain.peak, tuple(search.tried))
    found = _least(search) if step.train else None
    if found is None:
        least = min(nbytes for _, nbytes in search.tried)
        raise BudgetError(least, budget, "what XLA's buffers take with everything recomputed that may be")
    return JaxChoice(found[0], search.lean, found[1], default.peak, plain.peak, tuple(search.tried))


def _least(search: _Search) -> tuple[Recompute, Compiled] | None:
    captured = capture(search.step.forward, search.step.inputs, keep_rules=True)
    where = tuple(cuts(alive_after(captured.program, {}), inner_bytes(captured.program, {})))
    loops = any(op.kind == "jax.scan" for op in captured.program.operations)
    if not where and not loops:
        return None
    for policy, chosen in (("products", where), ("nothing", where), ("nothing", where[1::2])):
        parts = len(chosen)
        whole = Recompute(chosen, parts, policy, loops)
        compiled = search.compile(f"{parts} parts keep {policy}", captured, whole)
        if compiled.peak > search.budget:
            continue
        fewest, kept, most = (whole, compiled), 0, parts
        while most - kept > 1:
            middle = (kept + most) // 2
            choice = Recompute(chosen, middle, policy, loops)
            compiled = search.compile(f"{middle} of {parts} parts keep {policy}", captured, choice)
            if compiled.peak <= search.budget:
                most, fewest = middle, (choice, compiled)
            else:
                kept = middle
        return fewest
    return None


def restore(step: JaxStep, options: dict[str, Any]) -> Callable[..., Any]:
    """The step's function under a recipe's choice, not yet compiled."""
    data = options["recompute"]
    choice = Recompute(tuple(data["cuts"]), data["count"], data["policy"], data["loops"])
    if not choice.count and not choice.loops:
        return step.whole()
    return step.whole(recomputing(capture(step.forward, step.inputs, keep_rules=True), choice))


def sizes(arguments: Any) -> int:
    """Bytes of a tree of arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arguments))
