"""Errors about a step that has no name get the name of the target that made it."""

import pytest

from memfit.errors import BudgetError, TargetError, target_named


def test_an_error_about_a_step_names_the_target() -> None:
    with (
        pytest.raises(TargetError, match=r"'a\.py:main': it has no loss; give one") as caught,
        target_named("a.py:main"),
    ):
        raise TargetError("step", "it has no loss", "give one")
    assert (caught.value.target, caught.value.hint) == ("a.py:main", "give one")


def test_other_errors_stay_as_they_are() -> None:
    other = TargetError("b.py:main", "it is no function")
    with pytest.raises(TargetError) as caught, target_named("a.py:main"):
        raise other
    assert caught.value is other
    with pytest.raises(BudgetError), target_named("a.py:main"):
        raise BudgetError(2, 1, "the loss")
