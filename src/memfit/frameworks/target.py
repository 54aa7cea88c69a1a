"""Targets: ``file.py:function`` or ``package.module:function`` -> the function, and the Step that it returns."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memfit.errors import MemfitError, MissingFrameworkError, TargetError
from memfit.ir.step import Step, as_step

_EXTRAS = {
    "torch": "torch",
    "jax": "jax",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
    "transformers": "examples",
    "torchao": "lowbit",
}


def load_function(target: str) -> Callable[..., Any]:
    """The function that ``target`` names; its module is imported (a file under its own stem).

    Raises:
        TargetError: no such file, module or function, or the module raises while it is imported.
        MissingFrameworkError: the module imports a framework that is not installed.
    """
    where, colon, name = target.rpartition(":")
    if not colon or not name.isidentifier():
        raise TargetError(target, "it has no function", "write file.py:function or package.module:function")
    try:
        if where.endswith(".py"):
            path = Path(where)
            if not path.is_file():
                raise TargetError(target, f"there is no file {where}", f"looked in {Path.cwd()}")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, module)
            sys.path.insert(0, str(path.parent.resolve()))
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, str(Path.cwd()))
            if _missing(where):
                raise TargetError(target, f"there is no module {where}", "is it installed, or in this folder?")
            module = importlib.import_module(where)
    except MemfitError:
        raise
    except Exception as error:
        raise _explained(target, error, "its module raises on import") from error
    function = getattr(module, name, None)
    if not callable(function):
        names = sorted(
            n
            for n, v in vars(module).items()
            if inspect.isfunction(v) and v.__module__ == module.__name__ and n[0] != "_"
        )
        raise TargetError(target, f"no function {name!r} in {where}", f"functions there: {', '.join(names) or 'none'}")
    return function


def _missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True
    except (ImportError, ValueError):
        return False


def build_step(target: str, settings: Mapping[str, Any] | None = None) -> Step:
    """Call the target's function with ``settings`` as keyword arguments and normalise what it returns.

    Raises:
        TargetError: as ``load_function``; or the function raises, does not take a setting, or returns no step.
    """
    return step_of(load_function(target), target, settings)


def step_of(function: Callable[..., Any], target: str, settings: Mapping[str, Any] | None = None) -> Step:
    """As ``build_step``, of a function already loaded."""
    settings = dict(settings or {})
    try:
        inspect.signature(function).bind(**settings)
    except TypeError as error:
        raise TargetError(
            target, f"it does not take these settings: {error}", f"signature: {inspect.signature(function)}"
        ) from error
    try:
        value = function(**settings)
    except MemfitError:
        raise
    except Exception as error:
        raise _explained(target, error, "it raises") from error
    return as_step(value, target)


def parse_settings(pairs: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """``name=value`` texts -> keyword arguments; values are Python literals, else strings.

    >>> parse_settings(["layers=2", "kind=gelu", "scale=0.5"])
    {'layers': 2, 'kind': 'gelu', 'scale': 0.5}
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise TargetError(pair, "not a setting", "write --set name=value")
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[name] = text
    return settings


def _explained(target: str, error: Exception, what: str) -> MemfitError:
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] in _EXTRAS:
        root = error.name.partition(".")[0]
        return MissingFrameworkError(root, _EXTRAS[root])
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "memfit/frameworks" not in f.filename and not f.filename.startswith("<")] or list(
        frames
    )
    line = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
    return TargetError(
        target, f"{what}: {type(error).__name__}: {error}{line}", "run the function alone to see its traceback"
    )
