"""``memfit.KVCache`` under transformers' ``generate``: the same tokens as ``DynamicCache``, within a budget."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

import memfit
from memfit.errors import BudgetError


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def prompts() -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 97, (3, 50), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :7], mask[2, :33] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def generate(model: Any, cache: Any, inputs: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
    torch.manual_seed(5)
    with torch.no_grad():
        options = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0, **options}
        return model.generate(**inputs, past_key_values=cache, **options)


@pytest.mark.parametrize(
    "options", [{}, {"do_sample": True}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}]
)
def test_the_same_tokens_as_dynamic_cache(model: Any, options: dict[str, Any]) -> None:
    cache = memfit.KVCache("64MiB")
    want = generate(model, DynamicCache(), prompts(), **options)
    assert torch.equal(generate(model, cache, prompts(), **options), want)
    assert 0 < cache.resident_bytes <= cache.used_bytes <= cache.budget
    cache.close()
    assert cache.resident_bytes == cache.used_bytes == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_stored_is_what_dynamic_cache_stores(dtype: torch.dtype) -> None:
    ours, peer = memfit.KVCache("8MiB"), DynamicCache()
    generator = torch.Generator().manual_seed(0)
    for tokens in (33, 1, 1, 20, 1):
        keys = torch.randn(2, tokens, 3, 32, generator=generator).to(dtype).transpose(1, 2)
        values = torch.randn(2, 3, tokens, 32, generator=generator).to(dtype)
        for layer in range(2):
            mine, theirs = ours.update(keys, values, layer), peer.update(keys, values, layer)
            assert torch.equal(mine[0], theirs[0])
            assert torch.equal(mine[1], theirs[1])
    for cache in (ours, peer):
        cache.crop(-9)
        cache.batch_repeat_interleave(2)
        cache.reorder_cache(torch.tensor([3, 3, 0, 1]))
        cache.batch_select_indices(torch.tensor([0, 2]))
    assert ours.get_seq_length() == peer.get_seq_length() == 47
    assert torch.equal(ours.layers[1].keys, peer.layers[1].keys)


def test_a_common_prompt_is_shared_by_copies_and_by_tokens(model: Any) -> None:
    prefix = torch.randint(1, 97, (1, 70), generator=torch.Generator().manual_seed(2))
    asked = [torch.cat([prefix, torch.tensor([[i, 2 * i, 5]])], 1) for i in (3, 9)]
    want = [generate(model, DynamicCache(), {"input_ids": ids}) for ids in asked]
    first = memfit.KVCache("8MiB")
    with torch.no_grad():
        model(input_ids=prefix, past_key_values=first)
    alone = first.used_bytes
    copies = [copy.deepcopy(first) for _ in asked]
    assert first.used_bytes < 3 * alone
    for ids, cache, tokens in zip(asked, copies, want, strict=True):
        assert torch.equal(generate(model, cache, {"input_ids": ids}), tokens)
    store = memfit.KVCache("8MiB")
    assert torch.equal(generate(model, store, {"input_ids": asked[0]}), want[0])
    assert store.commit(want[0]) > 0
    again = store.begin(asked[1])
    assert again.get_seq_length() == 64
    assert torch.equal(generate(model, again, {"input_ids": asked[1]}), want[1])


def test_too_small_a_budget_names_the_smallest_that_works(model: Any) -> None:
    inputs = prompts()
    with pytest.raises(BudgetError) as caught:
        generate(model, memfit.KVCache(100_000, config=model.config, max_tokens=74), inputs)
    enough = memfit.KVCache(caught.value.needed, config=model.config, max_tokens=74)
    assert torch.equal(generate(model, enough, inputs), generate(model, DynamicCache(), inputs))
    with pytest.raises(BudgetError):
        generate(model, memfit.KVCache(caught.value.needed - 1, config=model.config, max_tokens=74), inputs)


def test_wrong_use_is_refused_in_words() -> None:
    cache = memfit.KVCache("1MiB")
    ones = torch.ones(1, 2, 4, 32)
    cache.update(ones, ones, 0)
    with pytest.raises(ValueError, match="reset"):
        cache.update(torch.ones(2, 2, 1, 32), torch.ones(2, 2, 1, 32), 0)
    with pytest.raises(ValueError, match="no_grad"):
        cache.update(ones.clone().requires_grad_(), ones, 0)
    with pytest.raises(memfit.SizeError):
        memfit.KVCache("lots")
    cache.reset()
    cache.update(torch.ones(2, 2, 1, 32), torch.ones(2, 2, 1, 32), 0)
    assert cache.get_seq_length() == 1
