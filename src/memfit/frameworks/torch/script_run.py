"""Record a plain script, as ``python script.py`` would run it; its steps are found, not declared.

A step ends when the first optimizer that stepped has stepped again (several optimizers, as of a generator and its
critic, make one step together); step 0 begins with the first forward of a module, and what comes before is the build.
Within a step the operations themselves tell forward, backward and optimizer. While operations are watched, hooks on all
modules learn the outermost models and what they are called with; they are taken off for the steps that are only
counted.
"""

from __future__ import annotations

import contextlib
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module as module_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from memfit.errors import TargetError
from memfit.frameworks.torch.known_storages import named_parameters
from memfit.frameworks.torch.operation_words import module_names, place_of_error
from memfit.frameworks.torch.run_recorder import RecordedRun, RunRecorder
from memfit.ir.trace import Category


class _Steps:
    """Turns what the hooks see into the steps of a ``RunRecorder``."""

    def __init__(self, recorder: RunRecorder, report: Callable[[int], None]) -> None:
        self._recorder = recorder
        self._report = report
        self.number = -1
        self._first: Any = None
        self._depth = 0
        self._roots: dict[int, torch.nn.Module] = {}
        self._names: dict[int, str] = {}
        self._handles: list[Any] = []
        self._lasting = [
            register_optimizer_step_pre_hook(self._before_optimizer),
            register_optimizer_step_post_hook(self._after_optimizer),
        ]
        self._watch_modules()

    def close(self) -> None:
        """Take every hook off, and end a step that is under way."""
        self._unwatch_modules()
        for handle in self._lasting:
            handle.remove()

    def _watch_modules(self) -> None:
        if not self._handles:
            self._depth = 0
            self._handles = [
                module_hooks.register_module_forward_pre_hook(self._before_forward),
                module_hooks.register_module_forward_hook(self._after_forward, always_call=True),
            ]

    def _unwatch_modules(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before_forward(self, module: torch.nn.Module, inputs: Any) -> None:
        if self.number < 0:
            self._begin(0)
        if self._depth == 0:
            if id(module) not in self._roots:
                self._roots[id(module)] = module
                self._learn(module)
            self._recorder.census.take_inputs(inputs)
        self._depth += 1

    def _after_forward(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self._depth = max(0, self._depth - 1)

    def _learn(self, module: torch.nn.Module) -> None:
        for address, name in module_names(module).items():
            self._recorder.modules.setdefault(address, name)
        self._recorder.census.take_model(module)
        for name, parameter in module.named_parameters():
            self._names.setdefault(id(parameter), name)

    def _before_optimizer(self, optimizer: Any, *_: Any) -> None:
        if self.number < 0:  # a program without modules
            self._begin(0)
        if self._recorder.watching:
            named = [(self._names.get(id(p), ""), p) for _, p in named_parameters(None, optimizer)]
            self._recorder.census.take(named, Category.PARAMETERS)
            self._recorder.census.take_gradients(named)

    def _after_optimizer(self, optimizer: Any, *_: Any) -> None:
        if self._recorder.watching:
            self._recorder.census.take_optimizer(optimizer, self._names)
        if self._first is None:
            self._first = id(optimizer)
        if self._first != id(optimizer):
            return
        self._recorder.end_step(self.number)
        self._begin(self.number + 1)
        if self._recorder.watching:
            self._watch_modules()
        else:
            self._unwatch_modules()

    def _begin(self, number: int) -> None:
        self.number = number
        self._report(number)
        self._recorder.begin_step(number)
        self._recorder.phase(number, "run")


def record_script(
    path: str, arguments: Sequence[str], *, every_step: bool = False, report: Callable[[int], None]
) -> RecordedRun:
    """Run a script to its end and record all of it. What it prints goes to standard error.

    Raises:
        TargetError: there is no such file, or the script raises.
        HookError: the hook cannot be built or put in place.
    """
    if not Path(path).is_file():
        raise TargetError(path, f"there is no file {path}", f"looked in {Path.cwd()}")
    recorder = RunRecorder(every_step=every_step)
    notes: list[str] = []
    recorder.start()
    try:
        steps = _Steps(recorder, report)
        try:
            with _as_main(path, arguments):
                runpy.run_path(path, run_name="__main__")
        except SystemExit as exit_request:
            if exit_request.code not in (None, 0):
                notes.append(f"the script ended with exit status {exit_request.code}")
        except Exception as error:
            where = place_of_error(error)
            raise TargetError(
                path, f"it raises {type(error).__name__}: {error}" + (f" at {where}" if where else ""),
                "run it alone to see its traceback",
            ) from error  # fmt: skip
        finally:
            steps.close()
        if not recorder.step_ends:
            notes.append("no optimizer stepped: the whole run is taken as one step")
            recorder.end_step(0)
        run = recorder.finish()
        run.notes += notes
        return run
    finally:
        recorder.close()


@contextlib.contextmanager
def _as_main(path: str, arguments: Sequence[str]) -> Iterator[None]:
    """``sys.argv``, ``sys.path`` and standard output as a script expects them, or as we need them."""
    argv, search = sys.argv, list(sys.path)
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).parent.resolve()))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.argv, sys.path[:] = argv, search
