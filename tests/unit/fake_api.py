"""Stand-ins for the api, so that the command line is tested without a framework."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest


class Api:
    """Records how each verb was called; answers what it was told, or raises it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}

    def verb(self, name: str) -> Any:
        """A function that stands for the verb ``name``."""

        def called(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return called

    @property
    def last(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """The last call, without its progress."""
        name, args, kwargs = self.calls[-1]
        return name, args, {key: value for key, value in kwargs.items() if key != "progress"}


MODULES = {
    "memfit.api.prediction": "predict",
    "memfit.api.profiling": "profile",
    "memfit.api.fitted": "fit_target",
    "memfit.frameworks.torch.calibrate": "calibrate",
}
PACKAGES = ("memfit.api", "memfit.frameworks.torch")


def install(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins where the commands import the verbs from."""
    for name in PACKAGES:
        package = types.ModuleType(name)
        package.__path__ = []
        monkeypatch.setitem(sys.modules, name, package)
    for name, verb in MODULES.items():
        module = types.ModuleType(name)
        setattr(module, verb, api.verb(verb))
        monkeypatch.setitem(sys.modules, name, module)
