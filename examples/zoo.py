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
from zoo_steps import FAMILIES, REGISTERED, as_step, family, image_step, make_optimizer, text_step, tokens

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


def _vision(prefix: str, batch: int, size: int, optimizer: str, train: bool, **sizes: Any) -> Step:
    import transformers

    config = getattr(transformers, f"{prefix}Config")(num_labels=10, **sizes)
    return image_step(
        getattr(transformers, f"{prefix}ForImageClassification")(config), batch, size, 10, optimizer, train
    )


_TRUNK = {"num_hidden_layers": 3, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512}


@family("vision")
def vit(batch: int = 4, size: int = 64, optimizer: str = "adamw", train: bool = True, dropout: float = 0.1) -> Step:
    """ViT."""
    return _vision(
        "ViT", batch, size, optimizer, train, image_size=size, patch_size=8, hidden_dropout_prob=dropout, **_TRUNK
    )


@family("vision")
def deit(batch: int = 4, size: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """DeiT."""
    return _vision("DeiT", batch, size, optimizer, train, image_size=size, patch_size=8, **_TRUNK)


@family("vision")
def swin(batch: int = 2, size: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """Swin: shifted windows, rolls, drop path."""
    return _vision(
        "Swin",
        batch,
        size,
        optimizer,
        train,
        image_size=size,
        patch_size=4,
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    )


@family("vision")
def convnext(batch: int = 2, size: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """ConvNeXt: depthwise 7x7 convolutions and channels-last layer norm."""
    return _vision(
        "ConvNext",
        batch,
        size,
        optimizer,
        train,
        hidden_sizes=[32, 64, 96, 128],
        depths=[1, 1, 2, 1],
        drop_path_rate=0.1,
    )


@family("vision")
def segformer(batch: int = 2, size: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """Segformer: attention with reduced keys, mix feed-forward."""
    sizes = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 8]}
    return _vision("Segformer", batch, size, optimizer, train, **sizes)


@family("vision")
def mobilenet(batch: int = 4, size: int = 64, optimizer: str = "sgd_momentum", train: bool = True) -> Step:
    """MobileNet v2: inverted residuals, depthwise convolutions."""
    return _vision("MobileNetV2", batch, size, optimizer, train, image_size=size, depth_multiplier=0.5)


@family("convolution")
def resnet(
    batch: int = 4,
    size: int = 64,
    optimizer: str = "sgd_momentum",
    train: bool = True,
    widths: tuple[int, ...] = (32, 64, 128),
    depths: tuple[int, ...] = (1, 1, 1),
    layer: str = "bottleneck",
    stem: int = 32,
) -> Step:
    """ResNet; see ``resnet50`` for the full one."""
    sizes = {"hidden_sizes": list(widths), "depths": list(depths), "layer_type": layer, "embedding_size": stem}
    return _vision("ResNet", batch, size, optimizer, train, **sizes)


def resnet50(batch: int = 8, size: int = 224, optimizer: str = "sgd_momentum", train: bool = True) -> Step:
    """The ResNet-50 configuration."""
    return resnet(batch, size, optimizer, train, (256, 512, 1024, 2048), (3, 4, 6, 3), "bottleneck", 64)


@family("convolution")
def regnet(batch: int = 4, size: int = 64, optimizer: str = "sgd", train: bool = True) -> Step:
    """RegNet: grouped convolutions, squeeze and excite."""
    sizes = {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 1, 1], "groups_width": 16, "embedding_size": 32}
    return _vision("RegNet", batch, size, optimizer, train, **sizes)


@family("convolution")
def unet(batch: int = 2, size: int = 32, optimizer: str = "adamw", train: bool = True) -> Step:
    """The U-Net of diffusion models: skip connections, group norm, attention at the bottom."""
    from diffusers import UNet2DModel

    model = UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
    )
    inputs = {"sample": torch.randn(batch, 3, size, size), "timestep": torch.randint(0, 1000, (batch,))}
    return as_step(model, inputs, optimizer, train, lambda output: output.sample.square().mean())


@family("convolution")
def autoencoder(batch: int = 2, size: int = 32, optimizer: str = "adamw", train: bool = True) -> Step:
    """The variational autoencoder of latent diffusion: resampling, mid-block attention."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        layers_per_block=1,
        sample_size=size,
    )
    return as_step(
        model, (torch.randn(batch, 3, size, size),), optimizer, train, lambda output: output.sample.square().mean()
    )


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
