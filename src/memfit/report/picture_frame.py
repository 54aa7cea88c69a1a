"""What all pictures (PNG) share: their ground and inks, and the refusal where nothing can draw them."""

from __future__ import annotations

import importlib.util

from memfit.errors import MissingFrameworkError

INK, SOFT, GROUND = "#1d2127", "#626973", "#fbfaf8"


def check_matplotlib() -> None:
    """Refuse before the work that cannot be drawn.

    Raises:
        MissingFrameworkError: matplotlib (the extra ``picture``) is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingFrameworkError("matplotlib", "picture")
