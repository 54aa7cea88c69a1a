"""From a name as ``named_sizes`` writes it back to the value that it has now."""

from __future__ import annotations

import ast
import re
from typing import Any

from memfit.observe.retention import program_roots

_PART = re.compile(r"\.(\w+)|\[([^\]]*)\]")


def value_of_name(name: str) -> Any:
    """The value of ``x.history['a'] in main()``-like names, None where it is gone."""
    path, _, where = name.partition(" in ")
    for root in program_roots():
        root_path, _, root_where = root.name.partition(" in ")
        if where != root_where or not path.startswith(root_path):
            continue
        rest = path[len(root_path) :]
        if rest and rest[0] not in ".[":
            continue
        value = root.value
        try:
            for attribute, key in _PART.findall(rest):
                value = object.__getattribute__(value, attribute) if attribute else value[ast.literal_eval(key)]
        except Exception:
            continue
        return value
    return None


def named_values(names: set[str]) -> list[tuple[str, Any]]:
    """The values that the names have now."""
    return [(name, value) for name in names for value in [value_of_name(name)] if value is not None]
