"""Record a run of torch steps on the CPU: the hook, the marks of its phases, and the census of its storages.

Operations are watched in the first two steps, and in any later step that follows one whose events were like none seen
while watched: a program in its steady state is then only counted, which costs next to nothing (``every_step`` watches
all). The caller says when steps and phases begin; ``RunRecorder`` keeps what is needed to explain them later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.known_storages import Census, named_parameters
from memfit.frameworks.torch.operation_words import module_names
from memfit.frameworks.torch.steps import run_step
from memfit.ir.recording import KnownStorage, Recording
from memfit.ir.step import Step
from memfit.ir.trace import Category

_WATCHED_FIRST = 2


@dataclass
class RecordedRun:
    """What a run left. Bytes: ``step_peaks`` and ``step_ends`` (live) per step, ``before`` and ``fullest`` as
    ``allocator_hook.resident`` gives them, ``recorder_bytes`` of memfit's own; ``seconds`` of CPU per step.
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


@dataclass
class RunRecorder:
    """One recording from ``start`` to ``finish``. ``every_step``: watch the operations of all steps, not of some."""

    every_step: bool = False
    census: Census = field(default_factory=lambda: Census(allocator_hook.block_of))
    modules: dict[int, str] = field(default_factory=dict)
    step_peaks: list[int] = field(default_factory=list)
    step_ends: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _watched: set[int] = field(default_factory=set)
    _watching: bool = True
    _began: float = 0.0
    _before: dict[str, int] = field(default_factory=dict)
    _installed: bool = False

    def start(self) -> None:
        """Install the hook and record from now on.

        Raises:
            HookError: the hook cannot be built or put in place.
        """
        allocator_hook.install()
        self._installed = True
        self._before = allocator_hook.resident()
        allocator_hook.start_samples()
        allocator_hook.start_recording(stacks=True)
        allocator_hook.mark("-1 build")

    def learn(self, step: Step) -> None:
        """Take the census of a step that was built: model, inputs, and names of its modules."""
        self.modules.update(module_names(step.model))
        self.census.take_model(step.model)
        self.census.take(named_parameters(step.model, step.optimizer), Category.PARAMETERS)
        self.census.take_inputs(step.inputs)

    def begin_step(self, number: int) -> None:
        """A step begins."""
        allocator_hook.take_digest()
        allocator_hook.reset_peak()
        self._began = time.process_time()

    def phase(self, number: int, phase: str) -> None:
        """A phase of step ``number`` begins."""
        allocator_hook.mark(f"{number} {phase}")

    def end_step(self, number: int) -> None:
        """A step ended: keep its figures, and decide whether the next one is watched."""
        self.seconds.append(time.process_time() - self._began)
        self.step_peaks.append(allocator_hook.peak_bytes())
        self.step_ends.append(allocator_hook.live_bytes())
        digest = allocator_hook.take_digest()
        if self._watching:
            self._watched.add(digest)
        self._watching = self.every_step or number + 1 < _WATCHED_FIRST or digest not in self._watched
        allocator_hook.watch_operations(self._watching)

    def finish(self) -> RecordedRun:
        """End the recording and hand everything over; the hook is taken out."""
        allocator_hook.sample_now()
        recorder_bytes = allocator_hook.recorder_bytes()
        fullest = allocator_hook.fullest()
        recording = allocator_hook.stop_recording()
        self.close()
        return RecordedRun(
            recording, self.census.rows, self.modules, self.step_peaks, self.step_ends, self.seconds, self._before,
            fullest, recorder_bytes, recording.peak,
        )  # fmt: skip

    def close(self) -> None:
        """Take the hook out, also after an error."""
        if self._installed:
            self._installed = False
            allocator_hook.stop_samples()
            if allocator_hook.is_recording():
                allocator_hook.stop_recording()
            allocator_hook.uninstall()


def record_steps(
    build: Callable[[], Step], steps: int, *, every_step: bool = False, report: Callable[[int], None]
) -> RecordedRun:
    """Build a step, run it ``steps`` times, and record all of it. ``report`` is called with the number of each step.

    Raises:
        HookError: the hook cannot be built or put in place.
    """
    recorder = RunRecorder(every_step=every_step)
    recorder.start()
    try:
        step = build()
        recorder.learn(step)
        named = named_parameters(step.model, step.optimizer)
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
