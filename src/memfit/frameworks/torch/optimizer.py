"""One parameter's share of an optimizer step, with the user's own optimizer and its own state.

``torch.optim`` optimizers update each parameter from its gradient and state alone, so stepping them one at a time, in any
order, is bit-identical to one step over all (tested for each of them). LBFGS couples all parameters; classes from
elsewhere may: those are stepped whole, at the end.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch

_COUPLED = {"LBFGS"}


def steps_parameters_alone(optimizer: Any) -> bool:
    """Whether the optimizer's update of a parameter depends on no other parameter."""
    known = type(optimizer).__module__.startswith("torch.optim") and type(optimizer).__name__ not in _COUPLED
    hooked = any(
        getattr(optimizer, name, None)
        for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks", "grad_scale", "found_inf")
    )
    return known and not hooked


def alone(optimizer: Any, group: dict[str, Any], parameter: torch.Tensor) -> Any:
    """The optimizer, seen with one parameter of ``group``; state is shared with the whole one."""
    view = object.__new__(type(optimizer))
    view.__dict__.update({k: v for k, v in optimizer.__dict__.items() if k not in ("step", "param_groups")})
    view.__dict__["_optimizer_step_pre_hooks"] = OrderedDict()
    view.__dict__["_optimizer_step_post_hooks"] = OrderedDict()
    view.param_groups = [{**group, "params": [parameter]}]
    return view


def group_of(optimizer: Any) -> dict[int, dict[str, Any]]:
    """id(parameter) -> its group, as it stands now (schedulers change groups between steps)."""
    return {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}


def step_alone(
    optimizer: Any, groups: dict[int, dict[str, Any]], parameter: torch.Tensor, gradient: torch.Tensor
) -> None:
    """Step ``parameter`` alone with ``gradient``; a parameter that the optimizer does not hold keeps its gradient."""
    group = groups.get(id(parameter))
    if group is None:
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return
    parameter.grad = gradient
    view = alone(optimizer, group, parameter)
    view.step()
    parameter.grad = None
    for key, value in view.param_groups[0].items():
        if key != "params":
            group[key] = value
    optimizer.__dict__["_opt_called"] = True


def state_bytes(optimizer: Any, parameter: torch.Tensor) -> int:
    """Bytes of ``parameter``'s optimizer state as it stands."""
    return sum(
        value.untyped_storage().nbytes()
        for value in optimizer.state.get(parameter, {}).values()
        if isinstance(value, torch.Tensor)
    )
