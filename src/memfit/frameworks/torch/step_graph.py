"""A target's whole step as a Graph, without its memory: built on hollow tensors, captured on fake ones.

What a static plan of a program needs is lifetimes and sizes, so unlike ``fit`` nothing is measured and no op is run: a
model of any size can be planned on a small machine. Cost: seconds, O(ops).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from memfit.errors import CaptureError, MemfitError
from memfit.frameworks.torch import optimizer as optimizers
from memfit.frameworks.torch.capture import capture
from memfit.frameworks.torch.program import program_of
from memfit.frameworks.torch.tape_mode import Tape
from memfit.ir.graph import Graph
from memfit.ir.step import Step


def graph_of_step(build: Callable[[], Step] | Step) -> Graph:
    """The Graph of a step: what is built (on hollow tensors), or a Step that exists (neither read nor changed).

    Raises:
        CaptureError: the step cannot be captured as one graph.
        MemfitError: the program raises where it is built.
    """
    step = build if isinstance(build, Step) else built_hollow(build)
    captured = capture(step)
    if captured.tests and step is not build:
        raise CaptureError("it looks at values of tensors, and a step that is only planned has none")
    alone = captured.training and step.optimizer is not None and optimizers.steps_parameters_alone(step.optimizer)
    trained = tuple(range(len(captured.trained))) if alone else ()
    return program_of(captured.module, captured.names, optimizer=trained).graph


def built_hollow(build: Callable[[], Step]) -> Step:
    """What ``build`` makes, on hollow tensors: a model of any size costs no memory.

    Raises:
        CaptureError: it cannot be built so; MemfitError: the program raises.
    """
    random_state = torch.get_rng_state()
    tape = Tape()
    try:
        with tape:
            return build()
    except MemfitError:
        raise
    except Exception as error:
        raise CaptureError(
            f"the program cannot be built on hollow tensors ({type(error).__name__}: {error})"
        ) from error
    finally:
        tape.stop()
        torch.set_rng_state(random_state)
