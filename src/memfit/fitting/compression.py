"""Search: the format of every layer of a torch model under a byte budget, by errors measured on the calibration batch.

    probe      each layer in each format alone, the error of the model's output measured (``compression_error``)
    choose     the knapsack over (bytes, squared error) of all layers (``passes/allocation``)
    verify     the whole model in the chosen formats is run, and so is the best single setting that fits: the better stays

Errors of layers add up only roughly; what is reported is the whole model's. Cost: layers x formats forwards, at most
``seconds`` of them, and one conversion of every weight for each format.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from memfit.errors import BudgetError
from memfit.frameworks.torch.compressed_file import table_of, tensors_of
from memfit.frameworks.torch.compressible import Layer, New, replace_layer, restore_layer, takes
from memfit.frameworks.torch.compression_error import (
    OutputError,
    Statistics,
    compare,
    converted,
    error_with,
    local_error,
    observe,
    run_outputs,
)
from memfit.ir.step import Step
from memfit.ir.tensor_file import file_bytes
from memfit.passes.allocation import Choice, allocate, smallest
from memfit.passes.formats import FORMATS, Format

Progress = Callable[[str, int | None, int | None], None]
_CACHE_BYTES = 1 << 30
_HEADER_ENTRY = 120  # of a header: what a tensor's row takes beside its name


@dataclass(frozen=True)
class Chosen:
    """``formats``: layer -> format; ``errors``: (layer, format) -> squared error of the output, alone, measured or scaled."""

    formats: dict[str, Format]
    error: OutputError
    errors: dict[tuple[str, str], float]
    gap: float | None = None
    smallest: int | None = None
    notes: tuple[str, ...] = field(default=())


class Compression:
    """One model, its layers and its calibration batch; changes the model in place."""

    def __init__(
        self, step: Step, layers: list[Layer], *, seconds: float = 60.0, progress: Progress | None = None
    ) -> None:
        self.step, self.layers, self.seconds = step, layers, seconds
        self.say = progress or (lambda description, done, total: None)
        self.reference = run_outputs(step)
        self.seen: dict[str, Statistics] = observe(step, layers)
        self._cache: dict[tuple[str, str], New] = {}
        self._held = 0

    def new_weight(self, layer: Layer, form: Format, zeros: float = 0.5) -> New:
        """``layer`` in ``form``; kept for the next time while that takes little memory."""
        key = (layer.name, form.name)
        if key not in self._cache:
            made = converted(layer, form, self.seen.get(layer.name), zeros)
            if self._held + made.nbytes > _CACHE_BYTES or form.kind != "int":
                return made
            self._cache[key] = made
            self._held += made.nbytes
        return self._cache[key]

    def apply(self, formats: dict[str, Format], zeros: float = 0.5) -> None:
        """Swap every layer into its format."""
        for number, layer in enumerate(self.layers):
            restore_layer(layer)
            if formats[layer.name].kind != "keep":
                replace_layer(layer, self.new_weight(layer, formats[layer.name], zeros))
            self.say("packing weights", number + 1, len(self.layers))

    def measured(self, formats: dict[str, Format], zeros: float = 0.5) -> OutputError:
        """The whole model's error in ``formats``; leaves the model so."""
        self.apply(formats, zeros)
        return compare(self.reference, run_outputs(self.step))

    def overhead(self) -> int:
        """Bytes of the file beside the layers' weights, at most: other tensors, and the header with all layers packed."""
        tensors = tensors_of(self.step.model)
        rows = sum(3 * (max(len(place.path) for place in layer.places) + _HEADER_ENTRY) for layer in self.layers)
        weights = sum(int(layer.weight.nbytes) for layer in self.layers)
        whole: int = file_bytes(table_of(tensors), {"format": "pt"})
        return whole - weights + rows

    def probe(self, names: tuple[str, ...]) -> dict[tuple[str, str], float]:
        """Squared output error of each layer in each format, alone."""
        errors: dict[tuple[str, str], float] = {}
        local: dict[tuple[str, str], float] = {}
        deadline = time.monotonic() + self.seconds
        work = [(layer, FORMATS[name]) for name in _probe_order(names) for layer in self.layers]
        for number, (layer, form) in enumerate(work):
            key = (layer.name, form.name)
            if form.kind == "keep":
                errors[key] = 0.0
                continue
            new = self.new_weight(layer, form)
            local[key] = local_error(layer, new, self.seen.get(layer.name))
            known = [other for other in errors if other[0] == layer.name and local.get(other)]
            if time.monotonic() < deadline or not known:
                errors[key] = error_with(self.step, layer, new, self.reference)
            else:
                errors[key] = errors[known[0]] * local[key] / local[known[0]]
            self.say("measuring each layer in each format", number + 1, len(work))
        return errors

    def choose(self, budget: int, names: tuple[str, ...]) -> Chosen:
        """The formats of least measured error within ``budget`` bytes of file; leaves the model in them.

        Raises:
            BudgetError: no choice of these formats keeps it.
        """
        for layer in self.layers:
            restore_layer(layer)
        overhead = self.overhead()
        forms = [FORMATS[name] for name in names]
        sizes = [[layer.stored_bytes(form) for form in forms] for layer in self.layers]
        least = overhead + smallest([[Choice(size, 0.0) for size in row] for row in sizes])
        if least > budget:
            raise BudgetError(
                least, budget, f"{overhead} bytes that stay as they are and {len(self.layers)} layers in {', '.join(names)}",
                "allow formats of fewer bits with --formats" if "int2" not in names else "",
            )  # fmt: skip
        errors = self.probe(names)
        table = [
            [Choice(size, errors[layer.name, name]) for size, name in zip(row, names, strict=True)]
            for row, layer in zip(sizes, self.layers, strict=True)
        ]
        found = allocate(table, budget - overhead)
        candidates = {
            "measured per layer": {
                layer.name: forms[pick] for layer, pick in zip(self.layers, found.picks, strict=True)
            }
        }
        fitting = [form for at, form in enumerate(forms) if overhead + sum(row[at] for row in sizes) <= budget]
        if fitting:
            uniform = max(fitting, key=lambda form: sum(layer.stored_bytes(form) for layer in self.layers))
            candidates[f"{uniform.name} everywhere"] = {layer.name: uniform for layer in self.layers}
        results = {name: self.measured(formats) for name, formats in candidates.items()}
        best = min(results, key=lambda name: results[name].relative)
        if best != list(results)[-1]:
            self.apply(candidates[best])
        notes = tuple(
            f"{name}: output error {error.relative:.4%} of the output's norm" + (" (used)" if name == best else "")
            for name, error in results.items()
        )
        return Chosen(candidates[best], results[best], errors, found.gap, least, notes)


def uniform(layers: Sequence[Layer], form: Format, zeros: float = 0.5) -> tuple[dict[str, Format], list[str]]:
    """One format for all layers, kept where it does not take one or where zeros would save nothing; and notes on those."""
    formats, notes = {}, []
    for layer in layers:
        formats[layer.name] = form
        if form.kind in ("csr", "bitmap"):
            kept = layer.rows * (layer.columns - min(layer.columns, round(layer.columns * zeros)))
            if layer.stored_bytes(form, kept) >= layer.weight.nbytes:
                notes.append(
                    f"{layer.name}: {zeros:.0%} zeros as {form.name} take {layer.stored_bytes(form, kept)} bytes, "
                    f"dense {layer.weight.nbytes}: kept dense"
                )
                formats[layer.name] = FORMATS["keep"]
        if not takes(layer, formats[layer.name]):
            notes.append(f"{layer.name}: {form.name} does not take it: kept as it is")
            formats[layer.name] = FORMATS["keep"]
    return formats, notes


def _probe_order(names: tuple[str, ...]) -> list[str]:
    """Few bits first: their errors stand out of the noise, and others are scaled from them where time runs out."""
    return sorted(names, key=lambda name: (FORMATS[name].kind != "int", abs(FORMATS[name].bits - 4)))
