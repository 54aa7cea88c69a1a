"""Runs a paged model for the command and the API: passes over a prompt or example inputs, then greedy generation."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from memfit.errors import TargetError
from memfit.frameworks.target import build_step
from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch.paged_folder import build_from_folder, example_inputs, is_model_folder
from memfit.frameworks.torch.paged_model import without_memory
from memfit.frameworks.torch.paging import Paging, closing, page_model
from memfit.frameworks.torch.steps import call_model
from memfit.runtime.weight_pager import PagingCounts


def run_target(
    target: str | Path,
    weights: str | Path | None,
    budget: int,
    *,
    prompt: str | None,
    tokens: int,
    new_tokens: int,
    passes: int,
    activations: int | None,
    keep_cache: bool,
    strict: bool,
    settings: Mapping[str, Any] | None,
    say: Callable[[str], None],
) -> tuple[str, dict[str, Any], Any]:
    """Name, report and output of a run; the arguments are those of ``memfit.run``."""
    say("building the model without weights")
    if is_model_folder(target):
        name = str(target)
        model, weights = build_from_folder(target), weights if weights is not None else target
        inputs = _prompt_inputs(model, str(target), prompt, tokens)
        length = inputs["input_ids"].shape[1]
        planned = example_inputs(model, length + new_tokens)
        if not new_tokens and "logits_to_keep" in planned:
            planned = {"input_ids": inputs["input_ids"]}
    else:
        name = str(target)
        if Path(target).is_dir() or ":" not in name:
            raise TargetError(
                name, "it is no model", "give a folder with config.json, or file.py:function and --weights FILE"
            )
        if new_tokens or prompt is not None:
            raise TargetError(name, "only a transformers folder can generate", "leave out --prompt and --new-tokens")
        with without_memory():
            step = build_step(name, settings)
        if not isinstance(step.model, torch.nn.Module):
            raise TargetError(name, f"its model is {type(step.model).__name__}, no torch.nn.Module")
        model, inputs = step.model.eval(), step.inputs
        planned = inputs
    if weights is None:
        raise TargetError(name, "it comes without files of weights", "give --weights FILE")
    page_model(
        model, weights, budget, inputs=planned, activations=activations, keep_cache=keep_cache, strict=strict, say=say
    )
    with closing(model), torch.no_grad(), _Tensors() as tensors:
        paging: Paging = model.memfit_paging
        seconds: list[float] = []
        counts = PagingCounts()
        output: Any = None
        for number in range(passes):
            say(f"pass {number + 1} of {passes}")
            before, begun = paging.counts, time.perf_counter()
            output = call_model(model, inputs)
            seconds.append(time.perf_counter() - begun)
            counts = paging.counts.since(before)
        generated = None
        begun = time.perf_counter()
        if new_tokens:
            say(f"generating {new_tokens} tokens")
            generated = model.generate(  # type: ignore[operator]
                inputs["input_ids"], max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False
            )
        generating = time.perf_counter() - begun
        report = paging.report()
        report["measured"]["peak"] = tensors.peak(model, paging)
        report["output_sha256"] = fingerprint(output if generated is None else generated)
        report["pass_seconds"] = seconds
        report["last_pass"] = {
            "read": counts.read, "used": counts.used, "hit_rate": counts.hit_rate, "waited": counts.waited,
        }  # fmt: skip
        if generated is not None:
            report["generated"] = generated[0, inputs["input_ids"].shape[1] :].tolist()
            report["tokens_per_second"] = new_tokens / generating
            report["text"] = _text(str(target), generated)
        return name, report, output if generated is None else generated


class _Tensors:
    """Peak bytes of what PyTorch allocates, by the allocator's own events where they can be had."""

    def __enter__(self) -> _Tensors:
        self._hook = allocator_hook.installed() if allocator_hook.is_available() else None
        if self._hook is not None:
            self._hook.__enter__()
            self._before = allocator_hook.live_bytes()
            allocator_hook.reset_peak()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._hook is not None:
            self._hook.__exit__(*error)

    def peak(self, model: torch.nn.Module, paging: Paging) -> int | None:
        """Weights in memory, the reader's buffer, the model's buffers and all tensors at their peak; None: not measured."""
        if self._hook is None:
            return None
        buffers = sum(buffer.untyped_storage().nbytes() for buffer in model.buffers())
        weights = paging.pager.memory.taken * paging.plan.layout.chunk_bytes
        return weights + paging.plan.buffer + buffers + allocator_hook.peak_bytes() - self._before


def _prompt_inputs(model: Any, folder: str, prompt: str | None, tokens: int) -> dict[str, Any]:
    if prompt is None:
        vocabulary = int(model.config.get_text_config().vocab_size)
        draw = torch.Generator().manual_seed(0)
        inputs = example_inputs(model, tokens)
        inputs.pop("logits_to_keep", None)
        shape = inputs["input_ids"].shape
        return {name: torch.randint(0, vocabulary, shape, generator=draw) for name in inputs}
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TargetError(
            folder,
            f"a prompt needs its tokenizer, which cannot be loaded: {str(error)[:200]}",
            "give --tokens N instead",
        ) from error
    return {"input_ids": tokenizer(prompt, return_tensors="pt")["input_ids"]}


def _text(folder: str, generated: torch.Tensor) -> str | None:
    import transformers

    if not any((Path(folder) / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        return None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return str(tokenizer.decode(generated[0], skip_special_tokens=True))
    except (OSError, ValueError, KeyError, ImportError):
        return None


def fingerprint(output: Any) -> str:
    """SHA-256 over dtype, shape and bytes of every tensor of ``output``, in order; equal for equal bits."""
    digest = hashlib.sha256()
    for tensor in _tensors(output):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    layers = getattr(value, "layers", None)
    if isinstance(layers, (list, tuple)):  # a key/value cache
        return [t for layer in layers for t in _tensors([getattr(layer, "keys", None), getattr(layer, "values", None)])]
    return []
