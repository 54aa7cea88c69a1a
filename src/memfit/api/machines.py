"""``memfit.measure_machine``: the memory hierarchy of this machine, measured; or a description of another one."""

from __future__ import annotations

from memfit.machine.probe import Progress
from memfit.machine.probe import measure_machine as _measure
from memfit.machine.spec import Machine, load_machine


def measure_machine(name: str | None = None, *, measure: bool = True, progress: Progress | None = None) -> Machine:
    """This machine's hierarchy, or the one of ``name`` (a ready description, or a file of ``memfit machine --json``).

    Args:
        measure: False: take the system's word instead of measuring.

    Raises:
        MachineError: no such description, or a system that says nothing of its caches where nothing was measured.

    Cost: 1 to 3 s where it measures, else a few milliseconds.
    """
    if name is not None or not measure:
        return load_machine(name)
    return _measure(progress)
