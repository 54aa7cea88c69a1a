"""Whose argument is it: `memfit profile [options] script.py [the script's own arguments]`, and `memfit leaks`."""

from __future__ import annotations

from collections.abc import Sequence

VALUE_OPTIONS = frozenset({"--set", "--device", "--budget", "--steps", "--html", "--perfetto", "--save-trace"})
"""The options of `profile` that take a value; a test holds this against the command."""

LEAKS_VALUE_OPTIONS = frozenset({"--pid", "--timeout", "--html"})
"""The same of `leaks`."""


def script_position(arguments: Sequence[str], value_options: frozenset[str] = VALUE_OPTIONS) -> int | None:
    """Where the script's name stands among the arguments of a command; None where the target is no script.

    >>> script_position(["--steps", "2", "train.py", "--json"]), script_position(["train.py:step", "--json"])
    (2, None)
    """
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        if argument == "--":
            return None
        if not argument.startswith("-"):
            return index if argument.endswith(".py") else None
        index += 2 if argument in value_options else 1
    return None


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line (the command first) asks memfit, not a script, for --json."""
    own = arguments
    known = {"profile": VALUE_OPTIONS, "leaks": LEAKS_VALUE_OPTIONS}.get(arguments[0]) if arguments else None
    if arguments and arguments[0] == "run" and "--pool" in arguments:
        known = frozenset()
    if known is not None and (position := script_position(arguments[1:], known)) is not None:
        own = arguments[: position + 1]
    return "--json" in own
