"""A zoo of target functions: small random models of many architectures, each one a memory shape of its own.

    memfit predict examples/zoo.py:gpt2 --set batch=8 --set optimizer=adamw_fused

Every function takes ``batch``, ``optimizer`` and ``train``, further keyword settings for its sizes, and ``dropout``
where the architecture has it. ``optimizer``: "none" (gradients only), or a ``torch.optim`` class in lower case, with
``_foreach`` or ``_fused`` behind it for those forms ("sgd", "sgd_momentum", "adamw", "adamw_fused", "rmsprop_foreach").
``train=False`` is inference. Defaults are small: a step takes 50-500 ms on one core. ``ARCHITECTURES`` names all.
Nothing is downloaded; weights are random.
"""

from __future__ import annotations

from typing import Any

import torch
from zoo_further import conv3d, g, gru, hubert, lstm, mamba, mamba2, mixtral, mlp, qwen_moe, r, wav2vec2, whisper
from zoo_steps import FAMILIES, REGISTERED, as_step, family, make_optimizer, text_step, tokens
from zoo_vision import autoencoder, convnext, deit, mobilenet, regnet, resnet, resnet50, segformer, swin, unet, vit

from memfit.ir.step import Step


def _decoder(prefix: str, batch: int, length: int, optimizer: str, train: bool, **sizes: Any) -> Step:
    """A causal language model of transformers, by the prefix of its class names."""
    import transformers

    config = getattr(transformers, f"{prefix}Config")(
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **sizes}
    )
    model = getattr(transformers, f"{prefix}{'LMHeadModel' if prefix == 'GPT2' else 'ForCausalLM'}")(config)
    return text_step(model, batch, length, config.vocab_size, optimizer, train)


def _llama_sizes(layers: int, width: int, heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "intermediate_size": width * 3,
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
    }


@family("decoder")
def gpt2(
    batch: int = 4,
    length: int = 64,
    optimizer: str = "adamw",
    train: bool = True,
    layers: int = 3,
    width: int = 128,
    heads: int = 4,
    vocabulary: int = 2000,
    dropout: float = 0.1,
) -> Step:
    """GPT-2; ``layers=12, width=768, heads=12, vocabulary=50257, length=256`` is the 124M one."""
    return _decoder(
        "GPT2",
        batch,
        length,
        optimizer,
        train,
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=vocabulary,
        n_positions=max(1024, length),
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
    )


@family("decoder")
def llama(
    batch: int = 2,
    length: int = 96,
    optimizer: str = "adamw",
    train: bool = True,
    layers: int = 3,
    width: int = 128,
    heads: int = 4,
    vocabulary: int = 2000,
) -> Step:
    """Llama with grouped-query attention."""
    return _decoder("Llama", batch, length, optimizer, train, **_llama_sizes(layers, width, heads, vocabulary))


def llama70b(batch: int = 1, length: int = 512, optimizer: str = "adamw", train: bool = True, layers: int = 80) -> Step:
    """Llama-70B (bfloat16 weights): to predict, not to run."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        sizes = _llama_sizes(layers, 8192, 64, 128256) | {"num_key_value_heads": 8, "intermediate_size": 28672}
        return _decoder("Llama", batch, length, optimizer, train, **sizes)
    finally:
        torch.set_default_dtype(before)


@family("decoder")
def opt(
    batch: int = 2,
    length: int = 64,
    optimizer: str = "adamw",
    train: bool = True,
    width: int = 128,
    dropout: float = 0.1,
) -> Step:
    """OPT: learned positions, ReLU."""
    return _decoder(
        "OPT",
        batch,
        length,
        optimizer,
        train,
        num_hidden_layers=3,
        hidden_size=width,
        num_attention_heads=4,
        ffn_dim=4 * width,
        vocab_size=2000,
        word_embed_proj_dim=width,
        dropout=dropout,
    )


@family("decoder")
def mistral(batch: int = 2, length: int = 96, optimizer: str = "adamw", train: bool = True, width: int = 128) -> Step:
    """Mistral with a sliding window shorter than the sequence."""
    return _decoder("Mistral", batch, length, optimizer, train, sliding_window=48, **_llama_sizes(3, width, 4, 2000))


@family("decoder")
def gemma(batch: int = 2, length: int = 64, optimizer: str = "adamw", train: bool = True, width: int = 128) -> Step:
    """Gemma: tied embeddings, wide heads."""
    return _decoder("Gemma", batch, length, optimizer, train, head_dim=64, **_llama_sizes(3, width, 4, 3000))


@family("decoder")
def qwen2(batch: int = 2, length: int = 64, optimizer: str = "adamw", train: bool = True, width: int = 128) -> Step:
    """Qwen2."""
    return _decoder("Qwen2", batch, length, optimizer, train, **_llama_sizes(3, width, 4, 2000))


@family("decoder")
def gpt_neox(batch: int = 2, length: int = 64, optimizer: str = "adamw", train: bool = True, width: int = 128) -> Step:
    """GPT-NeoX: parallel attention and feed-forward, partial rotary positions."""
    sizes = _llama_sizes(3, width, 4, 2000)
    del sizes["num_key_value_heads"]
    return _decoder("GPTNeoX", batch, length, optimizer, train, **sizes)


@family("decoder")
def bloom(batch: int = 2, length: int = 64, optimizer: str = "adamw", train: bool = True, width: int = 128) -> Step:
    """Bloom: ALiBi, attention by baddbmm and an explicit softmax."""
    return _decoder("Bloom", batch, length, optimizer, train, n_layer=3, hidden_size=width, n_head=4, vocab_size=2000)


def _encoder(prefix: str, batch: int, length: int, optimizer: str, train: bool, **sizes: Any) -> Step:
    import transformers

    defaults = {
        "num_hidden_layers": 3,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "vocab_size": 2000,
        "max_position_embeddings": max(512, length + 4),
        "pad_token_id": 0,
    }
    config = getattr(transformers, f"{prefix}Config")(**{**defaults, **sizes})
    return text_step(getattr(transformers, f"{prefix}ForMaskedLM")(config), batch, length, 2000, optimizer, train)


@family("encoder")
def bert(
    batch: int = 4,
    length: int = 64,
    optimizer: str = "adamw",
    train: bool = True,
    layers: int = 3,
    width: int = 128,
    dropout: float = 0.1,
) -> Step:
    """BERT with its masked-language-model head."""
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "hidden_dropout_prob": dropout,
    }
    return _encoder("Bert", batch, length, optimizer, train, attention_probs_dropout_prob=dropout, **sizes)


@family("encoder")
def roberta(batch: int = 4, length: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """RoBERTa: positions computed from the tokens."""
    return _encoder("Roberta", batch, length, optimizer, train)


@family("encoder")
def distilbert(batch: int = 4, length: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """DistilBERT."""
    return _encoder("DistilBert", batch, length, optimizer, train, n_layers=3, dim=128, n_heads=4, hidden_dim=512)


@family("encoder")
def deberta(batch: int = 2, length: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """DeBERTa v2: disentangled attention with gathers over relative positions."""
    sizes = {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 32,
        "max_relative_positions": 64,
    }
    return _encoder("DebertaV2", batch, length, optimizer, train, **sizes)


@family("encoder")
def electra(batch: int = 4, length: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """ELECTRA: embeddings narrower than the trunk."""
    return _encoder("Electra", batch, length, optimizer, train, embedding_size=64)


@family("encoder")
def albert(batch: int = 4, length: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """ALBERT: one layer's weights used by all."""
    return _encoder("Albert", batch, length, optimizer, train, embedding_size=64)


@family("encoder-decoder")
def t5(
    batch: int = 2,
    length: int = 48,
    optimizer: str = "adamw",
    train: bool = True,
    width: int = 128,
    dropout: float = 0.1,
) -> Step:
    """T5: relative position bias, shared embedding."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {
        "num_layers": 2,
        "d_model": width,
        "d_ff": 4 * width,
        "d_kv": width // 4,
        "num_heads": 4,
        "vocab_size": 2000,
    }
    model = T5ForConditionalGeneration(T5Config(**sizes, dropout_rate=dropout, decoder_start_token_id=0))
    inputs = {"input_ids": tokens(batch, length, 2000), "labels": tokens(batch, length, 2000)}
    if not train:
        inputs["decoder_input_ids"] = inputs["labels"]
    return as_step(model, inputs, optimizer, train)


def _seq2seq(prefix: str, batch: int, length: int, optimizer: str, train: bool) -> Step:
    import transformers

    config = getattr(transformers, f"{prefix}Config")(
        d_model=128,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        vocab_size=2000,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=2,
    )
    model = getattr(
        transformers,
        {"Bart": "BartForConditionalGeneration", "Marian": "MarianMTModel"}.get(
            prefix, f"{prefix}ForConditionalGeneration"
        ),
    )(config)
    ids = tokens(batch, length, 2000)
    return as_step(model, {"input_ids": ids, "decoder_input_ids": ids, "labels": ids}, optimizer, train)


@family("encoder-decoder")
def bart(batch: int = 2, length: int = 48, optimizer: str = "adamw", train: bool = True) -> Step:
    """BART."""
    return _seq2seq("Bart", batch, length, optimizer, train)


@family("encoder-decoder")
def pegasus(batch: int = 2, length: int = 48, optimizer: str = "adamw", train: bool = True) -> Step:
    """Pegasus: sinusoidal positions, layer norm first."""
    return _seq2seq("Pegasus", batch, length, optimizer, train)


ARCHITECTURES: tuple[str, ...] = tuple(REGISTERED)

__all__ = [
    "ARCHITECTURES",
    "FAMILIES",
    "albert",
    "autoencoder",
    "bart",
    "bert",
    "bloom",
    "conv3d",
    "convnext",
    "deberta",
    "deit",
    "distilbert",
    "electra",
    "g",
    "gemma",
    "gpt2",
    "gpt_neox",
    "gru",
    "hubert",
    "llama",
    "llama70b",
    "lstm",
    "make_optimizer",
    "mamba",
    "mamba2",
    "mistral",
    "mixtral",
    "mlp",
    "mobilenet",
    "opt",
    "pegasus",
    "qwen2",
    "qwen_moe",
    "r",
    "regnet",
    "resnet",
    "resnet50",
    "roberta",
    "segformer",
    "swin",
    "t5",
    "unet",
    "vit",
    "wav2vec2",
    "whisper",
]
