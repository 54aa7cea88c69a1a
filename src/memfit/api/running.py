"""`paged` and `run`: a model whose weights exceed the memory, run from its files within a byte budget.

The weights stay in the files; frames of a fixed number hold what is used now and next (``runtime.weight_pager``). The peak
is projected before the run and measured after it; the results are bit-exact, as the same kernels run on the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memfit.units import parse_bytes


def paged(
    model: Any,
    weights: str | Path | None = None,
    *,
    budget: int | str,
    inputs: Any = None,
    tokens: int = 512,
    activations: int | str | None = None,
    keep_cache: bool = False,
    strict: bool = True,
) -> Any:
    """The model, its weights paged from safetensors files within ``budget``.

    Args:
        model: a folder with config.json and safetensors files (transformers), or a module; its own weights are let go.
        weights: a safetensors file, an index or a folder of them; left out for a folder.
        budget: bytes (or text such as ``"512MiB"``) for weights and everything else that lives while it runs.
        inputs: example inputs (tensor, tuple or dict of keywords), as large as any that it will see.
        tokens: for a language model without ``inputs``: the longest sequence, prompt and generated, of one row.
        activations: bytes to leave for everything else, instead of or beyond what one pass over ``inputs`` shows.
        keep_cache: leave what is read in the page cache; off, the page cache is neither counted on nor filled.
        strict: refuse files with tensors that the model has no place for.

    Returns:
        The module, to be called as ever (``model(...)``, ``model.generate(...)``); ``model.memfit_paging`` has the plan
        (``report()``) and ``close()``.

    Raises:
        BudgetError: the weights of one operation and everything else exceed the budget; it names the smallest that works.
        WeightFileError: files that are cut short, lie, lack a weight, hold others; while it runs: files that changed.
        TargetError: no model, or one that raises on the example inputs.

    Cost: one pass on hollow tensors (20-40 us an op) and the plan, less than a second for most models; no weight is read.
    """
    from memfit.frameworks.torch.paging import page_model

    return page_model(
        model, weights, parse_bytes(budget), inputs=inputs, tokens=tokens,
        activations=None if activations is None else parse_bytes(activations), keep_cache=keep_cache, strict=strict,
    )  # fmt: skip


@dataclass(frozen=True)
class RunReport:
    """What one run did. ``data``: the promised keys; ``text``: what the model said, where it speaks."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    output: Any = None


def run(
    target: Any,
    weights: str | Path | None = None,
    *,
    budget: int | str,
    prompt: str | None = None,
    tokens: int = 128,
    new_tokens: int = 0,
    passes: int = 1,
    activations: int | str | None = None,
    keep_cache: bool = False,
    strict: bool = True,
    settings: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> RunReport:
    """Run inference of ``target`` within ``budget`` and report what was projected and measured.

    Args:
        target: a transformers folder, or ``file.py:function`` that returns a Step (or ``(model, inputs)``); it is called
            where parameters take no memory, so a model larger than memory can be built there.
        prompt: text for a language model whose folder holds a tokenizer; left out, ``tokens`` token ids are drawn with
            seed 0.
        new_tokens: tokens to generate (greedy); 0: only passes over the prompt.
        passes: how many passes over the prompt, >= 1.
        settings: keyword arguments of the target's function.

    Raises as ``paged``.
    """
    from memfit.frameworks.torch.paged_run import run_target

    begun = time.perf_counter()
    name, data, output = run_target(
        target, weights, parse_bytes(budget), prompt=prompt, tokens=tokens, new_tokens=new_tokens, passes=passes,
        activations=None if activations is None else parse_bytes(activations), keep_cache=keep_cache, strict=strict,
        settings=settings, say=say,
    )  # fmt: skip
    return RunReport(name, {**data, "seconds": time.perf_counter() - begun}, output)
