"""From a model and its files to the model paged: hold them against each other, dry pass, plan, pager, serve.

files --> places --> recorder: one pass on the tape --> order of use, bytes of everything else
                                                           |
budget ------------------------------------------------> plan --> pager (reads from now on) --> server
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from memfit.errors import MemfitError, TargetError
from memfit.frameworks.torch.paged_folder import build_from_folder, example_inputs
from memfit.frameworks.torch.paged_model import Place, page_parameters, places_of, store_of
from memfit.frameworks.torch.paged_store import DryPass, UseRecorder, WeightServer
from memfit.frameworks.torch.paged_weight import whole
from memfit.machine.process import process_bytes
from memfit.runtime.weight_file import WeightFiles
from memfit.runtime.weight_pager import PagingCounts, WeightPager
from memfit.runtime.weight_plan import WeightPlan, plan_weights
from memfit.units import format_bytes

ATTRIBUTE = "memfit_paging"
TOKENS = 512
"""Length of the pass that a language model is planned with, where nothing else is said."""


class Paging:
    """What pages a model: its plan, and what was measured since. ``model.memfit_paging`` of a paged model."""

    def __init__(self, plan: WeightPlan, dry: DryPass | None, pager: WeightPager, server: WeightServer) -> None:
        self.plan, self.dry, self.pager, self.server = plan, dry, pager, server

    @property
    def counts(self) -> PagingCounts:
        """What happened so far."""
        return self.pager.snapshot()

    def close(self) -> None:
        """Give the memory back, except what views of weights still show; the model cannot run afterwards."""
        self.server.close()

    def report(self) -> dict[str, Any]:
        """The plan (projected) and the counts (measured) as plain data; bytes are integers, seconds floats."""
        plan, counts = self.plan, self.counts
        return {
            "budget": plan.budget,
            "weights": plan.weights,
            "projected": {
                "peak": plan.peak, "resident_weights": plan.resident_weights, "everything_else": plan.live,
                "buffer": plan.buffer, "hit_rate": plan.hit_rate, "hit_bound": plan.hit_bound,
                "read_per_pass": plan.schedule.reads * plan.layout.chunk_bytes,
            },
            "measured": {
                "private": self.server.private, "resident_weights": self.pager.memory.taken * plan.layout.chunk_bytes,
                **vars(counts), "hit_rate": counts.hit_rate,
            },
            "chunk_bytes": plan.layout.chunk_bytes,
            "recorded": self.dry is not None,
        }  # fmt: skip


def page_model(
    model: Any,
    weights: str | Path | None,
    budget: int,
    *,
    inputs: Any = None,
    tokens: int = TOKENS,
    activations: int | None = None,
    keep_cache: bool = False,
    strict: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> torch.nn.Module:
    """``model`` with its weights paged from files; the arguments are those of ``memfit.paged``."""
    if isinstance(model, (str, Path)):
        folder, weights = model, weights if weights is not None else model
        say("building the model without weights")
        model = build_from_folder(folder)
    if not isinstance(model, torch.nn.Module):
        raise TargetError(type(model).__name__, "it is no torch.nn.Module", "give a module, or a transformers folder")
    if weights is None:
        raise TargetError(type(model).__name__, "it comes without files of weights", "give weights=FILE or a folder")
    if getattr(model, ATTRIBUTE, None) is not None:
        raise MemfitError("the model is paged already; close it with model.memfit_paging.close() and build it anew")
    if inputs is None and activations is None:
        inputs = example_inputs(model, tokens) if hasattr(model, "config") else None
    files = WeightFiles(weights, keep=keep_cache)
    try:
        say("holding the files against the model")
        places = places_of(model, files, strict=strict)
        dry = _dry_pass(model, places, inputs, activations, budget, say)
        places, order, needs = _in_order_of_use(places, dry)
        say("planning")
        plan = plan_weights(
            [place.names[0] for place in places], [place.stored.nbytes for place in places],
            [(place.file, place.stored.begin) for place in places], needs, dry.live, budget, files,
            _largest(places, needs, dry.live),
        )  # fmt: skip
        server = _serve(model, places, plan, files, order)
    except BaseException:
        files.close()
        raise
    paging = Paging(plan, dry if inputs is not None else None, server.pager, server)
    object.__setattr__(model, ATTRIBUTE, paging)
    weakref.finalize(model, server.close)
    return model


def _dry_pass(
    model: torch.nn.Module,
    places: list[Place],
    inputs: Any,
    activations: int | None,
    budget: int,
    say: Callable[[str], None],
) -> DryPass:
    """The order of use and the bytes of everything else; without inputs, the order of registration."""
    recorder = UseRecorder([place.stored for place in places])
    page_parameters(model, places, recorder)
    whole(model)
    gc.collect()
    buffers = sum(buffer.untyped_storage().nbytes() for buffer in model.buffers())
    assumed = tuple((weight,) for weight in range(len(places)))
    if inputs is None:
        return DryPass(assumed, buffers + (budget // 4 if activations is None else activations), assumed)
    say("one pass without weights")
    try:
        dry = recorder.record(model, inputs)
    except MemfitError:
        raise
    except Exception as error:
        if activations is not None:
            return DryPass(assumed, buffers + activations, assumed)
        raise TargetError(
            type(model).__name__, f"one pass over the example inputs raises {type(error).__name__}: {str(error)[:300]}",
            "check the inputs, or give activations=BYTES: the order is then learned while it runs",
        ) from error  # fmt: skip
    if activations is not None:
        dry = DryPass(dry.order, max(dry.live, activations + buffers), dry.needs, dry.notes)
    return dry


def _in_order_of_use(
    places: list[Place], dry: DryPass
) -> tuple[list[Place], list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Places, accesses and needs renumbered by first use; what no access takes comes last."""
    first = list(dict.fromkeys(weight for access in dry.order for weight in access))
    first += sorted(set(range(len(places))) - set(first))
    number = {old: new for new, old in enumerate(first)}

    def renumbered(accesses: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
        return [tuple(sorted(number[weight] for weight in access)) for access in accesses]

    return [places[old] for old in first], renumbered(dry.order), renumbered(dry.needs)


def _largest(places: list[Place], order: list[tuple[int, ...]], live: int) -> str:
    heaviest = max(order, key=lambda access: sum(places[w].stored.nbytes for w in access), default=())
    nbytes = sum(places[weight].stored.nbytes for weight in heaviest)
    names = [places[weight].names[0] for weight in heaviest]
    shown = " and ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    return (
        f"{shown or 'no weight'} ({format_bytes(nbytes)} used at once) beside {format_bytes(live)} of everything else"
    )


def _serve(
    model: torch.nn.Module, places: list[Place], plan: WeightPlan, files: WeightFiles, order: list[tuple[int, ...]]
) -> WeightServer:
    base = anonymous_bytes()
    pager = WeightPager(plan.layout, files, order, plan.schedule)
    server = WeightServer(pager, [place.stored for place in places], base)
    page_parameters(model, places, server)
    store_of(model, server)
    return server


def anonymous_bytes() -> int:
    """Private memory of this process now (measured); 0 where ``/proc`` is missing."""
    return process_bytes("RssAnon") or 0


@contextlib.contextmanager
def closing(model: torch.nn.Module) -> Any:
    """Close the paging of ``model`` on the way out."""
    try:
        yield model
    finally:
        paging: Paging | None = getattr(model, ATTRIBUTE, None)
        if paging is not None:
            paging.close()
