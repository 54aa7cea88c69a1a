"""`domain`: a tenant of this process with a budget, over NumPy's arrays and the tensors of the frameworks in use."""

from __future__ import annotations

import sys

from memfit.runtime.domains import Domain, DomainUsage, add_entrance, known_domains, named

_KEEP = object()


def domain(name: str, budget: int | str | object | None = _KEEP, *, guard: bool = False) -> Domain:
    """A context in which this thread's allocations are charged to the domain ``name`` and held to its budget.

    >>> import memfit, numpy as np
    >>> with memfit.domain("tenant", budget="1MiB") as tenant:
    ...     kept = np.zeros(1000)
    >>> tenant.usage.used
    8000

    Args:
        name: the same name is the same domain, whoever enters it, however often.
        budget: bytes or a size such as ``"1GiB"``; None for none; left out, what it was.
        guard: each block between pages that fault, so that an access out of bounds names the domain; slow (two system
            calls a block), for finding errors.

    Raises:
        MemfitError: a budget below what the domain uses already.
        SizeError: a budget that is no size.
    Inside of the block, DomainBudgetError is raised where an allocation would go over the budget. torch is charged where
    it was imported before the block was entered.
    """
    if "torch" in sys.modules:
        from memfit.frameworks.torch.domain_tensors import entrance

        add_entrance(entrance)
    found = named(name)
    was = found.usage.budget
    found.limit(was if budget is _KEEP else budget, guard)  # type: ignore[arg-type]
    return found


def domains() -> tuple[DomainUsage, ...]:
    """Every domain's bytes in use, high-water mark, budget, blocks and refusals, as measured now."""
    return known_domains()
