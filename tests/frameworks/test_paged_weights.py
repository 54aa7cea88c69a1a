"""Paged weights: the same bits as the model in memory, whatever the model does with its weights; frames never exceeded."""

from __future__ import annotations

import copy
import functools
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import save_file
from torch import nn

import memfit
from memfit.errors import BudgetError, MemfitError, TargetError, WeightFileError
from memfit.frameworks.torch.paged_run import fingerprint
from memfit.frameworks.torch.paged_weight import PagedWeight
from memfit.frameworks.torch.steps import call_model
from tests.frameworks import tiny_models

LLAMA = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 5, "num_attention_heads": 4, "vocab_size": 300,
    "max_position_embeddings": 64,
}  # fmt: skip


def save(model: nn.Module, path: Path) -> Path:
    """All parameters and persistent buffers, a shared one once."""
    seen: dict[int, str] = {}
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen[id(tensor)] = name
            state[name] = tensor.detach().contiguous()
    save_file(state, str(path))
    return path


def paged_and_whole(model: nn.Module, inputs: Any, tmp_path: Path, budget: int | None = None) -> tuple[Any, Any, Any]:
    """Outputs of three passes in memory and paged, at the smallest budget unless another is given; and the paging."""
    model = model.eval()
    path = save(model, tmp_path / "weights.safetensors")
    with torch.no_grad():
        expected = [fingerprint(call_model(model, inputs)) for _ in range(3)]
    if budget is None:
        with pytest.raises(BudgetError) as refused:
            memfit.paged(copy.deepcopy(model), path, budget=4096, inputs=inputs)
        budget = refused.value.needed
    paged = memfit.paged(model, path, budget=budget, inputs=inputs)
    with torch.no_grad():
        found = [fingerprint(call_model(paged, inputs)) for _ in range(3)]
    paging = paged.memfit_paging
    assert paging.pager.memory.taken <= paging.plan.frames
    assert paging.plan.peak <= budget
    paging.close()
    return expected, found, paging


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 2), nn.GroupNorm(4, 32),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Odd(nn.Module):
    """Uses weights in the ways that modules do not: views that live on, other modules' parameters, the same twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(96, 96), nn.Linear(96, 96, bias=False)
        self.scale = nn.Parameter(torch.randn(96))
        self.table = nn.Embedding(200, 96)
        self.unused = nn.Linear(50, 50)

    def forward(self, ids: torch.Tensor) -> Any:
        x = self.table(ids) * self.scale
        turned = self.two.weight.T
        first, second = self.one.weight.chunk(2)
        y = self.one(x) @ turned + x @ torch.cat([first, second])
        rows = self.table.weight[ids[0]]
        return y, (rows, self.one.weight.detach().sum(), -self.scale), x @ self.table.weight[:7].t()


def encoder(mask: bool) -> tuple[nn.Module, dict[str, Any]]:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    inputs: dict[str, Any] = {"src": torch.randn(3, 9, 32)}
    if mask:
        padding = torch.zeros(3, 9, dtype=torch.bool)
        padding[1, 5:] = True
        inputs["src_key_padding_mask"] = padding
    return nn.TransformerEncoder(layer, 4), inputs


def attention() -> tuple[nn.Module, Any]:
    x = torch.randn(2, 5, 32)
    return nn.MultiheadAttention(32, 4, batch_first=True), (x, x, x)


def albert() -> tuple[nn.Module, Any]:
    config = tf.AlbertConfig(
        vocab_size=80,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
    )
    return tf.AlbertModel(config), {"input_ids": torch.arange(20).reshape(2, 10)}


PROGRAMS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "convolutions": lambda: (Convolutions(), torch.randn(2, 3, 12, 12)),
    "lstm": lambda: (nn.LSTM(24, 48, num_layers=2, bidirectional=True), torch.randn(7, 2, 24)),
    "gru": lambda: (nn.GRU(24, 48), torch.randn(7, 2, 24)),
    "odd": lambda: (Odd(), torch.arange(24).reshape(2, 12)),
    "encoder": lambda: encoder(False),
    "attention": attention,
    "decoder layer": lambda: (nn.TransformerDecoderLayer(32, 4, 64), (torch.randn(4, 2, 32), torch.randn(5, 2, 32))),
    "one layer, many times": albert,
    "bfloat16": lambda: (
        nn.Sequential(*[nn.Linear(64, 64) for _ in range(6)]).bfloat16(),
        torch.randn(3, 64).bfloat16(),
    ),
    "no weights": lambda: (nn.Sequential(nn.ReLU()), torch.randn(4)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_bits_at_the_smallest_budget(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = PROGRAMS[name]()
    budget = 1 << 20 if name == "no weights" else None
    expected, found, _ = paged_and_whole(model, inputs, tmp_path, budget)
    assert found == expected


def test_a_model_that_cannot_be_traced_runs_with_bytes_given_for_the_rest(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = encoder(True)
    path = save(model.eval(), tmp_path / "weights.safetensors")
    with torch.no_grad():
        expected = fingerprint(model(**inputs))
    with pytest.raises(TargetError, match="give activations=BYTES"):
        memfit.paged(copy.deepcopy(model), path, budget="150KiB", inputs=inputs)
    paged = memfit.paged(model, path, budget="200KiB", inputs=inputs, activations="64KiB")
    with torch.no_grad():
        assert [fingerprint(paged(**inputs)) for _ in range(3)] == [expected] * 3


@pytest.mark.parametrize(
    "make", [tiny_models.gpt2, tiny_models.bert, tiny_models.vit, tiny_models.t5], ids=lambda f: f.__name__
)
def test_models_of_transformers(make: Callable[[], Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    step = make()
    expected, found, paging = paged_and_whole(step.model, step.inputs, tmp_path)
    assert found == expected
    assert paging.counts.unexpected == 0


@functools.cache
def llama_folder(root: Path, shards: str = "10MB") -> Path:
    torch.manual_seed(1)
    folder = root / f"llama-{shards}"
    tf.LlamaForCausalLM(tf.LlamaConfig(**LLAMA)).eval().save_pretrained(folder, max_shard_size=shards)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("shards", ["10MB", "300KB"])
def test_generation_from_a_folder_gives_the_same_tokens(root: Path, shards: str) -> None:
    folder = llama_folder(root, shards)
    ids = torch.arange(3, 15).reshape(1, 12)
    whole = tf.LlamaForCausalLM.from_pretrained(folder).eval()
    expected = whole.generate(ids, max_new_tokens=6, do_sample=False)
    paged = memfit.paged(folder, budget="900KiB", tokens=20)
    weights = paged.memfit_paging.plan.weights
    assert paged.memfit_paging.plan.resident_weights < weights
    assert torch.equal(paged.generate(ids, max_new_tokens=6, do_sample=False), expected)
    counts = paged.memfit_paging.counts
    assert counts.unexpected == 0
    assert counts.read > weights
    paged.memfit_paging.close()


def test_a_tied_head_is_one_weight(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = tf.LlamaForCausalLM(tf.LlamaConfig(**LLAMA, tie_word_embeddings=True)).eval()
    whole.save_pretrained(tmp_path)
    ids = torch.arange(3, 15).reshape(1, 12)
    paged = memfit.paged(tmp_path, budget="700KiB", tokens=16)
    assert paged.lm_head.weight is paged.model.embed_tokens.weight
    with torch.no_grad():
        assert torch.equal(paged(ids).logits, whole(ids).logits)


def test_the_order_of_a_decoder_loop_is_learned(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = tf.T5Config(
        d_model=32, d_ff=64, num_layers=3, num_heads=2, d_kv=16, vocab_size=90, decoder_start_token_id=0
    )
    whole = tf.T5ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    ids = torch.arange(3, 15).reshape(1, 12)
    expected = whole.generate(ids, max_new_tokens=20, min_new_tokens=20, do_sample=False)
    paged = memfit.paged(tmp_path, budget="300KiB", tokens=24)
    assert torch.equal(paged.generate(ids, max_new_tokens=20, min_new_tokens=20, do_sample=False), expected)
    counts = paged.memfit_paging.counts
    assert counts.relearned == 1
    assert counts.unexpected <= 12


def test_without_inputs_the_order_is_learned_while_it_runs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    blocks = [nn.Linear(64, 64) for _ in range(8)]
    model = nn.Sequential(*reversed(blocks))
    holder = nn.ModuleDict({"a": nn.ModuleList(blocks), "b": model}).eval()
    holder.forward = lambda x: holder["b"](x)  # type: ignore[method-assign]
    path = save(holder, tmp_path / "weights.safetensors")
    x = torch.randn(2, 64)
    with torch.no_grad():
        expected = holder(x)
        paged = memfit.paged(holder, path, budget="160KiB", activations="16KiB")
        for _ in range(4):
            assert torch.equal(paged(x), expected)
        before = paged.memfit_paging.counts
        for _ in range(4):
            assert torch.equal(paged(x), expected)
    counts = paged.memfit_paging.counts
    assert before.relearned == 1
    assert counts.relearned == 1
    assert counts.unexpected == before.unexpected


def test_a_step_pages_as_planned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(256, 256, bias=False) for _ in range(24)]).eval()
    inputs = torch.randn(2, 256)
    path = save(model, tmp_path / "weights.safetensors")
    paged = memfit.paged(model, path, budget=4 << 20, inputs=inputs)
    paging = paged.memfit_paging
    assert 0 < paging.plan.hit_rate <= paging.plan.hit_bound < 1
    with torch.no_grad():
        paged(inputs)
        paged(inputs)
        before = paging.counts
        for _ in range(5):
            paged(inputs)
    passes = paging.counts.since(before)
    planned = paging.plan.schedule.reads * paging.plan.layout.chunk_bytes
    assert abs(passes.read - 5 * planned) <= planned
    assert passes.unexpected == 0


def linear(tmp_path: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(128, 128) for _ in range(6)]).eval()
    return model, save(model, tmp_path / "weights.safetensors")


def test_views_that_are_held_keep_their_bytes(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    expected = [layer.weight.detach().clone() for layer in model]
    x = torch.randn(1, 128)
    paged = memfit.paged(model, path, budget="512KiB", inputs=x)
    held = [paged[0].weight.T, paged[3].weight.view(-1)]
    with torch.no_grad():
        paged(x)
        paged(x)
    assert torch.equal(held[0].T, expected[0])
    assert torch.equal(held[1].view(128, 128), expected[3])
    held = []
    gc.collect()
    assert all(torch.equal(layer.weight.clone(), value) for layer, value in zip(paged, expected, strict=True))


def test_views_of_everything_are_refused_with_the_reason(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    paged = memfit.paged(model, path, budget="300KiB", inputs=torch.randn(1, 128))
    with pytest.raises(BudgetError, match="views of weights"):
        [layer.weight.T for layer in paged]


@pytest.mark.parametrize("write", [lambda w: w.zero_(), lambda w: w.detach().add_(1), lambda w: w.T.mul_(2)])
def test_writing_into_a_weight_is_refused(write: Callable[[Any], Any], tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    paged = memfit.paged(model, path, budget="1MiB", inputs=torch.randn(1, 128))

    def write_and_run() -> None:
        with torch.no_grad():
            write(paged[1].weight)
            paged(torch.randn(1, 128))

    with pytest.raises(MemfitError, match="read-only"):
        write_and_run()


def test_conversion_is_refused_and_a_move_to_where_it_is_does_nothing(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    x = torch.randn(1, 128)
    with torch.no_grad():
        expected = model(x)
    paged = memfit.paged(model, path, budget="1MiB", inputs=x)
    assert torch.equal(paged.to("cpu").float()(x), expected)
    with pytest.raises(MemfitError, match="cannot be converted"):
        paged.half()


def test_what_a_paged_weight_answers(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    paged = memfit.paged(model, path, budget="1MiB", inputs=torch.randn(1, 128))
    weight = paged[2].weight
    assert isinstance(weight, PagedWeight)
    assert isinstance(weight, nn.Parameter)
    assert (tuple(weight.shape), weight.dtype, weight.device.type, weight.numel()) == (
        (128, 128),
        torch.float32,
        "cpu",
        16384,
    )
    assert not weight.requires_grad
    assert repr(weight) == "PagedWeight('2.weight', (128, 128), torch.float32)"
    assert paged.memfit_paging.counts.accesses == 0


def test_the_smallest_budget_works_and_a_byte_less_does_not(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    x = torch.randn(1, 128)
    with pytest.raises(BudgetError, match=r"the smallest feasible.*0.weight") as refused:
        memfit.paged(copy.deepcopy(model), path, budget="20KiB", inputs=x)
    with pytest.raises(BudgetError):
        memfit.paged(copy.deepcopy(model), path, budget=refused.value.needed - 1, inputs=x)
    memfit.paged(model, path, budget=refused.value.needed, inputs=x)(x)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("3.weight"), r"1 of the model's 12 weights are not in it: '3.weight'"),
        (lambda s: s.update(more=torch.zeros(3)), r"no place for 1 of its 13 tensors: 'more'"),
        (lambda s: s.update({"3.weight": s["3.weight"].half()}), r"'3.weight' is float16, the model wants float32"),
        (lambda s: s.update({"3.weight": s["3.weight"][:5].clone()}), r"has the shape \[5, 128\]"),
    ],
)
def test_files_that_do_not_fit_the_model(change: Callable[[Any], Any], words: str, tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    state = dict(model.state_dict())
    change(state)
    save_file(state, str(path))
    with pytest.raises(WeightFileError, match=words):
        memfit.paged(model, path, budget="1MiB", inputs=torch.randn(1, 128))


def test_extra_tensors_are_left_unread_on_request(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    save_file({**model.state_dict(), "more": torch.zeros(3)}, str(path))
    x = torch.randn(1, 128)
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(memfit.paged(model, path, budget="1MiB", inputs=x, strict=False)(x), expected)


def test_a_file_that_changes_is_noticed_before_its_bytes_are_used(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    x = torch.randn(1, 128)
    paged = memfit.paged(model, path, budget="300KiB", inputs=x)
    with torch.no_grad():
        paged(x)
        with open(path, "r+b") as file:
            file.seek(2000)
            file.write(b"changed")
        with pytest.raises(WeightFileError, match="changed while it was in use"):
            [paged(x) for _ in range(3)]


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    paged = memfit.paged(model, path, budget="1MiB", inputs=torch.randn(1, 128))
    paged.memfit_paging.close()
    paged.memfit_paging.close()
    with pytest.raises(MemfitError, match="were closed"):
        paged(torch.randn(1, 128))


def test_example_inputs_that_do_not_fit_the_model(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    with pytest.raises(TargetError, match="example inputs raises"):
        memfit.paged(model, path, budget="1MiB", inputs=torch.randn(1, 3))


def test_a_view_outlives_the_model(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    expected = model[0].weight.detach().clone()
    paged = memfit.paged(model, path, budget="1MiB", inputs=torch.randn(1, 128))
    view = paged[0].weight.T
    paged.memfit_paging.close()
    del paged, model
    gc.collect()
    assert torch.equal(view.T, expected)


def test_a_dead_model_gives_its_memory_back(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    paged = memfit.paged(model, path, budget="1MiB", inputs=torch.randn(1, 128))
    pager = paged.memfit_paging.pager
    del paged, model
    gc.collect()
    assert not pager._reader.is_alive()
    assert not pager.memory._mapped


def test_inference_mode_and_autocast(tmp_path: Path) -> None:
    model, path = linear(tmp_path)
    x = torch.randn(3, 128)
    with torch.inference_mode():
        expected = model(x)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(x)
    paged = memfit.paged(model, path, budget="300KiB", inputs=x)
    with torch.inference_mode():
        assert torch.equal(paged(x), expected)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(paged(x), cast)
    assert torch.equal(paged(x).detach(), expected)
