"""Programs whose backward runs a backward of its own, and so cannot be captured as one graph.

Such a ``torch.autograd.Function`` gives parameters gradients in passing: the graph does not lead from the loss to them,
and ``autograd.grad`` says, without an error, that there are none. Reentrant checkpointing is the best known one. Cost:
one walk over the graph of the loss.
"""

from __future__ import annotations

import torch
import torch.utils.checkpoint

from memfit.errors import CaptureError


def own_functions(loss: torch.Tensor) -> set[type]:
    """The classes of torch.autograd.Function, written in Python, in the graph of a loss."""
    found: set[type] = set()
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            found.add(node._forward_cls)  # type: ignore[attr-defined]
        waiting += [following for following, _ in node.next_functions]
    return found


def refuse_inner_backward(functions: set[type], without: list[str]) -> None:
    """Such a Function may run a backward of its own, which gives parameters gradients that no graph shows.

    Reentrant checkpointing does. ``without``: parameters that got no gradient.
    """
    if any(issubclass(each, torch.utils.checkpoint.CheckpointFunction) for each in functions):
        raise CaptureError("it uses checkpoint(use_reentrant=True)", hint="use_reentrant=False is fitted as one graph")
    if functions and without:
        names = ", ".join(sorted(each.__name__ for each in functions))
        raise CaptureError(
            f"parameter {without[0]} may get its gradient inside of {names}, which runs its own backward"
        )
