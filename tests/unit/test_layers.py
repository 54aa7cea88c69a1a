"""The compiled core is touched by its own modules only. import-linter sees no extension modules, so a test looks."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent.parent / "src" / "memfit"
ALLOWED = {"machine", "analyses", "passes", "planners", "allocators", "paging", "runtime", "data", "testing"}


def touches_core(source: str) -> bool:
    """Whether a module imports ``memfit._core``, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(alias.name.startswith("memfit._core") for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom):
            named = node.module == "memfit" and any(alias.name == "_core" for alias in node.names)
            if named or (node.module or "").startswith("memfit._core"):
                return True
    return False


def test_only_kernels_own_modules_touch_the_compiled_core() -> None:
    found = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if touches_core(path.read_text(encoding="utf-8"))
    }
    assert found
    assert found <= ALLOWED


def test_a_breach_is_noticed_also_inside_a_function() -> None:
    assert touches_core("def f():\n    from memfit import _core\n")
    assert touches_core("import memfit._core as core")
    assert touches_core("from memfit._core import peak")
    assert not touches_core("from memfit import units")
