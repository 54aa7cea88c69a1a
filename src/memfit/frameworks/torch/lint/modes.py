"""``eval-mode``: a model evaluated as if it were trained, with its dropout drawing and its statistics moving.

In an inference step: the model is in train mode. In a step of the user's own loop: a call of the model without a graph while
the same model is trained in that step (a second model without a graph, as momentum encoders are, may be meant so).
``set-to-none``: gradients kept as zeros from one step to the next.
"""

from __future__ import annotations

from torch import nn

from memfit.frameworks.torch.lint.changes import Evaluating, ToNone, WithoutGraph
from memfit.frameworks.torch.lint.finding import Finding, Seen

_STATISTICS = nn.modules.batchnorm._BatchNorm
_DROPOUTS = nn.modules.dropout._DropoutNd
_FIX = "call .eval() before and .train() after it"


def _differs(model: nn.Module) -> str:
    """What of a model in train mode behaves otherwise; empty for nothing."""
    for module in model.modules():
        if isinstance(module, _DROPOUTS) and module.training and module.p > 0:
            return f"dropout of {module.p:g}"
        if isinstance(module, _STATISTICS) and module.training and module.track_running_stats:
            return "batch statistics"
        if isinstance(module, nn.RNNBase) and module.training and module.dropout > 0:
            return f"dropout of {module.dropout:g}"
        if isinstance(module, nn.MultiheadAttention) and module.training and module.dropout > 0:
            return f"dropout of {module.dropout:g}"
    return ""


def evaluation(seen: Seen) -> list[Finding]:
    """Evaluation in train mode."""
    model = seen.step.model
    roots = [call for call in seen.calls if call.parent is None]
    backward = any(call.step == seen.last for call in seen.watch.backwards)
    if not backward:
        why = _differs(model) if isinstance(model, nn.Module) else ""
        if not why:
            return []
        line = next((seen.own_line(call.lines) for call in roots), seen.origin)
        what = f"the model is evaluated in train mode ({why})"
        return [Finding("eval-mode", line, what, "call .eval() on it first", "", change=Evaluating(), wrong=True)]
    trained = {id(call.module) for call in roots if any(save.used_by for save in call.saves)}
    findings: dict[str, Finding] = {}
    for call in roots:
        graphless = not call.grad or not any(save.used_by for save in call.saves)
        if graphless and call.training and id(call.module) in trained and _differs(call.module):
            what = f"{seen.named(call.module)} is evaluated in train mode ({_differs(call.module)})"
            line = seen.own_line(call.lines)
            change = WithoutGraph([call.number], evaluate=True)
            findings.setdefault(line, Finding("eval-mode", line, what, _FIX, "", change=change, wrong=True))
    return list(findings.values())


def zeros(seen: Seen) -> list[Finding]:
    """``zero_grad(set_to_none=False)``."""
    found = {seen.own_line(call.lines): call for call in seen.watch.zero_grads if call.step == seen.last}
    return [
        Finding(
            "set-to-none", line, "gradients are kept as zeros until the next backward pass",
            "zero_grad() drops them; leave out set_to_none=False", change=ToNone(),
        )
        for line in found
    ]  # fmt: skip
