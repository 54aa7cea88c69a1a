"""Domains: tenants of one process, each with a budget that its allocations are held to.

    with domain("a", budget="1GiB"):        this thread charges domain a: what it allocates, wherever it is freed
        ...                                 DomainBudgetError at the limit; domain b goes on

An account counts the bytes asked for: in use, their high-water mark, blocks, refusals. NumPy's arrays are charged through
its allocation hooks (NEP 49), which are of a context as Python's context variables are; a framework's tensors through an
entrance that it registers (``add_entrance``). A domain may be entered by many threads at once, and inside of another:
the innermost is charged. Charging is one atomic exchange, so two threads at the limit never both get the last bytes.

NumPy turns a refusal into its own MemoryError; leaving the block turns that into the DomainBudgetError it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from memfit import _core
from memfit.errors import DomainBudgetError, MemfitError
from memfit.units import format_bytes, parse_bytes

__all__ = ["Domain", "DomainUsage", "add_entrance", "current", "error_of", "known_domains", "named", "native_calls"]

Leave = Callable[[], None]
Entrance = Callable[[int], Leave]
"""Takes the number of an account; this thread's allocations are charged to it until what it returns is called."""

_entrances: list[Entrance] = []
_here = threading.local()
_known: dict[str, Domain] = {}
_by_account: dict[int, Domain] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class DomainUsage:
    """Bytes: ``used`` now, ``high_water`` the most at once, ``budget`` (None: none). ``blocks`` alive, ``charges`` since
    it was opened, ``refused`` because of the budget. All measured.
    """

    name: str
    used: int
    high_water: int
    budget: int | None
    blocks: int
    charges: int
    refused: int


class Domain:
    """A tenant; ``named`` makes it. Enter it with ``with``; entering it again, also from another thread, goes on with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._account = _core.domain_open(name)

    def limit(self, budget: int | str | None, guard: bool) -> None:
        """Set the budget (bytes or a size; None: none) and whether each block lies between guard pages.

        Raises:
            MemfitError: a budget below what is in use.
        """
        nbytes = -1 if budget is None else parse_bytes(budget)
        used = self.usage.used
        if 0 <= nbytes < used:
            raise MemfitError(
                f"domain {self.name!r} uses {format_bytes(used)} ({used} bytes) already, more than a budget of "
                f"{format_bytes(nbytes)} ({nbytes}); free something of it first"
            )
        _core.domain_limit(self._account, nbytes, guard)

    @property
    def usage(self) -> DomainUsage:
        """The account's figures now."""
        used, high, budget, blocks, charges, refused, _ = _core.domain_figures(self._account)
        return DomainUsage(self.name, used, high, None if budget < 0 else budget, blocks, charges, refused)

    def reset_high_water(self) -> None:
        """Let the high-water mark start anew from what is in use."""
        _core.domain_reset_high(self._account)

    def charge(self, nbytes: int) -> None:
        """Count bytes that the domain uses by other ways (a file mapping, a device's memory); ``credit`` gives them back.

        Raises:
            DomainBudgetError: they would go over the budget; nothing is counted.
        """
        if nbytes < 0 or not _core.domain_charge(self._account, nbytes):
            raise self.error(nbytes)

    def credit(self, nbytes: int) -> None:
        """Give back what ``charge`` counted."""
        _core.domain_credit(self._account, nbytes)

    def error(self, needed: int) -> DomainBudgetError:
        """The error of a refusal of so many bytes."""
        usage = self.usage
        return DomainBudgetError(self.name, needed, usage.used, usage.budget if usage.budget is not None else 0)

    def __enter__(self) -> Domain:
        leave: list[Leave] = []
        try:
            for entrance in (_numpy_entrance, *_entrances):
                leave.append(entrance(self._account))
        except BaseException:
            for done in reversed(leave):
                done()
            raise
        _stack().append((self, leave, self.usage.refused))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _, leave, refused = _stack().pop()
        for done in reversed(leave):
            done()
        if isinstance(error, MemoryError) and not isinstance(error, MemfitError) and self.usage.refused > refused:
            raise self.error(_core.domain_figures(self._account)[6]) from error

    def __repr__(self) -> str:
        usage = self.usage
        of = "" if usage.budget is None else f" of {format_bytes(usage.budget)}"
        return (
            f"<Domain {self.name!r}: {format_bytes(usage.used)}{of} in use, at most {format_bytes(usage.high_water)}>"
        )


def _stack() -> list[tuple[Domain, list[Leave], int]]:
    """The domains that this thread is in, the innermost last."""
    found: list[tuple[Domain, list[Leave], int]] | None = getattr(_here, "stack", None)
    if found is None:
        found = _here.stack = []
    return found


def current() -> Domain | None:
    """The domain that this thread charges, or None."""
    stack = _stack()
    return stack[-1][0] if stack else None


def named(name: str) -> Domain:
    """The domain of a name, made where there is none yet. Its account lives as long as the process.

    Raises:
        MemfitError: an empty name, or one of more than 55 bytes.
    """
    if not 1 <= len(name.encode()) <= 55:
        raise MemfitError(f"a domain's name has 1 to 55 bytes, and {name!r} has {len(name.encode())}")
    with _lock:
        if name not in _known:
            made = Domain(name)
            _known[name] = made
            _by_account[made._account] = made
        return _known[name]


def known_domains() -> tuple[DomainUsage, ...]:
    """The figures of every domain, in the order in which they were opened."""
    with _lock:
        return tuple(domain.usage for domain in _known.values())


def error_of(account: int, needed: int) -> DomainBudgetError:
    """The error of a refusal, from the number of an account: what an entrance's native side calls."""
    return _by_account[account].error(needed)


def native_calls() -> tuple[int, int, int, int]:
    """For an entrance's native side, addresses: charge(account, bytes) -> 0 or 1, credit(account, bytes), a guarded
    block(account, bytes) or null where the domain has no guard, and free(block) -> 0 where it is none of those.
    """
    return _core.domain_calls()


def add_entrance(entrance: Entrance) -> None:
    """Let a framework's memory be charged too, from the next entering of a domain on; the same one twice counts once."""
    with _lock:
        if entrance not in _entrances:
            _entrances.append(entrance)


def _numpy_entrance(account: int) -> Leave:
    before = _core.numpy_enter(account)
    return lambda: _core.numpy_leave(before)
