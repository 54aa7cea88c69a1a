"""A transformers folder (config.json and safetensors) -> the model without memory for its weights, and inputs to plan with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from memfit.errors import MissingFrameworkError, TargetError
from memfit.frameworks.torch.paged_model import without_memory


def is_model_folder(path: str | Path) -> bool:
    """Whether ``path`` is a folder with a config.json."""
    return (Path(path) / "config.json").is_file()


def build_from_folder(path: str | Path) -> torch.nn.Module:
    """The model that the folder's config.json describes, in inference mode, its parameters without memory.

    Raises:
        TargetError: there is no config.json, or transformers cannot build what it says.
        MissingFrameworkError: transformers is not installed.
    """
    path = Path(path)
    if not is_model_folder(path):
        raise TargetError(str(path), "it holds no config.json", "give a folder written by save_pretrained")
    try:
        import transformers
    except ImportError as error:
        raise MissingFrameworkError("transformers", "examples") from error
    try:
        content = json.loads((path / "config.json").read_text("utf-8"))
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TargetError(str(path), f"its config.json cannot be read: {str(error)[:300]}") from error
    names = content.get("architectures") or []
    kind = getattr(transformers, str(names[0]), None) if names else transformers.AutoModelForCausalLM
    if kind is None:
        raise TargetError(str(path), f"transformers {transformers.__version__} has no {names[0]!r}")
    dtype = getattr(config, "dtype", None) or torch.float32
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    build = getattr(kind, "_from_config", None) or kind.from_config
    try:
        with without_memory(), torch.no_grad():
            model: torch.nn.Module = build(config, dtype=dtype)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise TargetError(str(path), f"transformers cannot build it: {str(error)[:300]}") from error
    model.eval()
    if (path / "generation_config.json").is_file() and model.can_generate():  # type: ignore[operator]
        model.generation_config = transformers.GenerationConfig.from_pretrained(path, local_files_only=True)
    return model


def example_inputs(model: Any, tokens: int, batch: int = 1) -> dict[str, Any]:
    """Keyword arguments of one pass over ``tokens`` tokens, as long as generation ever sees.

    Raises:
        TargetError: the model takes no tokens.
    """
    import inspect

    taken = inspect.signature(model.forward).parameters
    if "input_ids" not in taken:
        name = type(model).__name__
        raise TargetError(name, "it takes no input_ids", "write a function file.py:function and give --weights")
    longest = getattr(model.config, "max_position_embeddings", None) or tokens
    ids = torch.ones((batch, min(tokens, longest)), dtype=torch.long)
    inputs: dict[str, Any] = {"input_ids": ids}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    if "logits_to_keep" in taken:
        inputs["logits_to_keep"] = 1
    return inputs
