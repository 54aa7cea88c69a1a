"""Segments and domains' accounts against their twins, on random sequences of calls."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from memfit.errors import DomainBudgetError, SegmentError
from memfit.runtime.domains import named
from memfit.runtime.segments import Segment
from memfit.testing.tenants import AccountTwin, SegmentTwin

_numbers = count()


def outcome(call: Any) -> Any:
    try:
        return call()
    except SegmentError as error:
        return ("refused", error.segment, error.offset, error.access)
    except DomainBudgetError as error:
        return ("refused", error.needed, error.used, error.budget)


calls = st.one_of(
    st.tuples(st.just("read"), st.integers(-3, 9000), st.integers(0, 5000)),
    st.tuples(st.just("write"), st.integers(-3, 9000), st.binary(max_size=40)),
    st.tuples(st.just("protect"), st.sampled_from(["read", "read-write", "none"])),
)


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, 8200), rows=st.lists(calls, max_size=25))
def test_a_segment_does_what_its_twin_does(limit: int, rows: list[Any]) -> None:
    real, twin = Segment("s", limit), SegmentTwin("s", limit)
    for name, *arguments in rows:
        assert outcome(lambda: getattr(real, name)(*arguments)) == outcome(lambda: getattr(twin, name)(*arguments))  # noqa: B023
    real.protect("read-write")
    real.check()
    assert real.read(0, limit) == bytes(twin.content)
    real.close()


@settings(max_examples=60, deadline=None)
@given(
    budget=st.one_of(st.none(), st.integers(1, 100)),
    rows=st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=40),
)
def test_an_account_counts_what_its_twin_counts(budget: int | None, rows: list[tuple[bool, int]]) -> None:
    name = f"twin {next(_numbers)}"
    real, twin, held = named(name), AccountTwin(name, budget), list[int]()
    real.limit(budget, False)
    for gives, nbytes in rows:
        if gives and held:
            freed = held.pop(nbytes % len(held))
            real.credit(freed)
            twin.credit(freed)
            continue
        got = outcome(lambda: real.charge(nbytes))  # noqa: B023
        assert got == outcome(lambda: twin.charge(nbytes))  # noqa: B023
        if got is None:
            held.append(nbytes)
    found = real.usage
    assert {key: getattr(found, key) for key in vars(twin)} == vars(twin)
