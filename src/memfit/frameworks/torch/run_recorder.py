"""Record a run of torch steps on the CPU: the hook, the marks of its phases, and the census of its storages.

Operations are watched in the first three steps, and in any later step that follows one whose events were like none seen
while watched: a program in its steady state is then only counted, which costs next to nothing (``every_step`` watches
all). The caller says when steps and phases begin; ``RunRecorder`` keeps what is needed to explain them later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from memfit.errors import DeviceError
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.known_storages import Census, named_parameters
from memfit.frameworks.torch.operation_words import module_names
from memfit.frameworks.torch.profiler_events import ProfilerHook
from memfit.frameworks.torch.steps import run_step
from memfit.ir.recording import KnownStorage, Recording
from memfit.ir.step import Step
from memfit.ir.trace import Category

_WATCHED_FIRST = 3


@dataclass
class RecordedRun:
    """What a run left. Bytes: ``step_peaks`` and ``step_ends`` (live) per step, ``before`` and ``fullest`` as
    ``allocator_hook.resident`` gives them, ``recorder_bytes`` of memfit's own, ``reserved`` where the allocator itself
    tells it; ``seconds`` of CPU per step.
    """

    recording: Recording
    known: list[KnownStorage]
    modules: dict[int, str]
    step_peaks: list[int]
    step_ends: list[int]
    seconds: list[float]
    before: dict[str, int]
    fullest: dict[str, int]
    recorder_bytes: int
    peak: int
    notes: list[str] = field(default_factory=list)
    reserved: int | None = None


@dataclass
class RunRecorder:
    """One recording from ``start`` to ``finish``. ``every_step``: watch the operations of all steps, not of some.
    ``hook``: ``allocator_hook``, or a ``ProfilerHook`` where that cannot be built.
    """

    every_step: bool = False
    hook: Any = field(default_factory=lambda: allocator_hook if allocator_hook.is_available() else ProfilerHook())
    modules: dict[int, str] = field(default_factory=dict)
    step_peaks: list[int] = field(default_factory=list)
    step_ends: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    census: Census = field(init=False)
    _watched: set[int] = field(default_factory=set)
    _watching: bool = True
    _before: dict[str, int] = field(default_factory=dict)
    _installed: bool = False
    _deferred: bool = False

    def __post_init__(self) -> None:
        self.census = Census(self.hook.block_of)
        self._deferred = isinstance(self.hook, ProfilerHook)
        self._begin, self._end, self._mark_phase = self.hook.step_calls()

    @property
    def watching(self) -> bool:
        """Whether operations are watched now."""
        return self._watching

    def start(self) -> None:
        """Install the hook and record from now on.

        Raises:
            HookError: the hook cannot be built or put in place.
        """
        self.hook.install()
        self._installed = True
        self._before = self.hook.resident()
        self.hook.start_samples()
        self.hook.start_recording(stacks=True)
        self.hook.mark("-1 build")

    def learn(self, step: Step) -> None:
        """Take the census of a step that was built: model, inputs, and names of its modules."""
        self.modules.update(module_names(step.model))
        self.census.take_model(step.model)
        self.census.take(named_parameters(step.model, step.optimizer), Category.PARAMETERS)
        self.census.take_inputs(step.inputs)

    def begin_step(self, number: int) -> None:
        """A step begins."""
        self._begin()

    def phase(self, number: int, phase: str) -> None:
        """A phase of step ``number`` begins."""
        self._mark_phase(number, phase)

    def end_step(self, number: int) -> None:
        """A step ended: keep its figures, and decide whether the next one is watched."""
        peak, live, digest, seconds = self._end()
        self.seconds.append(seconds)
        self.step_peaks.append(peak)
        self.step_ends.append(live)
        if self._watching:
            self._watched.add(digest)
        watch = self.every_step or number + 1 < _WATCHED_FIRST or digest not in self._watched
        if watch != self._watching:
            self._watching = watch
            self.hook.watch_operations(watch)
        if self._deferred:
            self.hook.mark(f"{number} end")

    def finish(self) -> RecordedRun:
        """End the recording and hand everything over; the hook is taken out."""
        self.hook.sample_now()
        recorder_bytes = self.hook.recorder_bytes()
        fullest = self.hook.fullest()
        recording = self.hook.stop_recording()
        self.close()
        known = self.census.rows
        if self._deferred:
            known = self.hook.resolved(known)
            self.step_peaks, self.step_ends = step_figures(recording, len(self.seconds))
        return RecordedRun(
            recording, known, self.modules, self.step_peaks, self.step_ends, self.seconds, self._before, fullest,
            recorder_bytes, recording.peak,
        )  # fmt: skip

    def close(self) -> None:
        """Take the hook out, also after an error."""
        if self._installed:
            self._installed = False
            self.hook.stop_samples()
            if self.hook.is_recording():
                self.hook.stop_recording()
            self.hook.uninstall()


def step_figures(recording: Recording, steps: int) -> tuple[list[int], list[int]]:
    """Peak, and live bytes at the end, of each step, from the marks ``"k phase"`` .. ``"k end"`` of a recording."""
    live = np.concatenate([[0], np.cumsum(recording.delta)])
    peaks, ends = [], []
    for number in range(steps):
        at = [
            event
            for text, event in zip(recording.mark_text, recording.mark_event.tolist(), strict=True)
            if text.partition(" ")[0] == str(number)
        ]
        peaks.append(int(live[at[0] : at[-1] + 1].max()))
        ends.append(int(live[at[-1]]))
    return peaks, ends


def record_steps(
    build: Callable[[], Step], steps: int, *, every_step: bool = False, report: Callable[[int], None]
) -> RecordedRun:
    """Build a step, run it ``steps`` times, and record all of it. ``report`` is called with the number of each step.

    Raises:
        HookError: the hook cannot be put in place; DeviceError: the step is on another device.
    """
    recorder = RunRecorder(every_step=every_step)
    recorder.start()
    try:
        step = build()
        named = named_parameters(step.model, step.optimizer)
        elsewhere = sorted({parameter.device.type for _, parameter in named} - {"cpu"})
        if elsewhere:
            raise DeviceError("cpu", f"the model is on {', '.join(elsewhere)}; say --device {elsewhere[0]}")
        recorder.learn(step)
        labels = {id(parameter): name for name, parameter in named}
        for number in range(steps):
            report(number)
            recorder.begin_step(number)

            def mark(phase: str, number: int = number) -> None:
                recorder.phase(number, phase)
                if phase == "optimizer":
                    recorder.census.take_gradients(named)

            if step.run is None:
                run_step(step, mark)
            else:
                recorder.phase(number, "run")
                run_step(step)
                recorder.phase(number, "between")
            recorder.census.take_optimizer(step.optimizer, labels)
            if step.optimizer is None or step.run is not None:
                recorder.census.take_gradients(named)
            recorder.end_step(number)
        return recorder.finish()
    finally:
        recorder.close()
