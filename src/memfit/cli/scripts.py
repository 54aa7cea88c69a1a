"""Whose argument is it: `memfit profile [options] script.py [the script's own arguments]`."""

from __future__ import annotations

from collections.abc import Sequence

VALUE_OPTIONS = frozenset({"--set", "--device", "--budget", "--steps", "--html", "--perfetto", "--save-trace"})
"""The options of `profile` that take a value; a test holds this against the command."""


def script_position(arguments: Sequence[str]) -> int | None:
    """Where the script's name stands among the arguments of `profile`; None where the target is no script.

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
        index += 2 if argument in VALUE_OPTIONS else 1
    return None


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line (the command first) asks memfit, not a script, for --json."""
    own = arguments
    takes_script = arguments and (arguments[0] == "profile" or (arguments[0] == "run" and "--pool" in arguments))
    if takes_script and (position := script_position(arguments[1:])) is not None:
        own = arguments[: position + 1]
    return "--json" in own
