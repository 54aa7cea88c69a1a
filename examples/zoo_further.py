"""The zoo's audio, mixture-of-experts and state-space models, and those written by hand: G, R, recurrent, 3-D, MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from zoo_steps import as_step, family, text_step, tokens

from memfit.ir.step import Step


@family("audio")
def whisper(
    batch: int = 1, length: int = 200, optimizer: str = "adamw", train: bool = True, dropout: float = 0.1
) -> Step:
    """Whisper: 1-D convolutions over spectrogram frames (``length`` of them), then encoder and decoder."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {
        "d_model": 128,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    }
    config = WhisperConfig(
        **sizes,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        vocab_size=2000,
        max_source_positions=length // 2,
        dropout=dropout,
        max_target_positions=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        num_mel_bins=80,
    )
    ids = tokens(batch, 24, 2000)
    inputs = {"input_features": torch.randn(batch, 80, length // 2 * 2), "decoder_input_ids": ids, "labels": ids}
    return as_step(WhisperForConditionalGeneration(config), inputs, optimizer, train)


_SPEECH = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "conv_dim": (64,) * 7,
    "num_conv_pos_embeddings": 32,
    "layerdrop": 0.0,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}


@family("audio")
def wav2vec2(batch: int = 1, length: int = 8000, optimizer: str = "adamw", train: bool = True) -> Step:
    """Wav2Vec2 with connectionist temporal classification over raw samples."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    inputs = {"input_values": torch.randn(batch, length), "labels": torch.randint(1, 32, (batch, 8))}
    return as_step(Wav2Vec2ForCTC(Wav2Vec2Config(**_SPEECH)), inputs, optimizer, train)


@family("audio")
def hubert(batch: int = 1, length: int = 8000, optimizer: str = "adamw", train: bool = True) -> Step:
    """HuBERT, classifying whole recordings."""
    from transformers import HubertConfig, HubertForSequenceClassification

    inputs = {"input_values": torch.randn(batch, length), "labels": torch.randint(0, 5, (batch,))}
    return as_step(HubertForSequenceClassification(HubertConfig(**_SPEECH, num_labels=5)), inputs, optimizer, train)


@family("mixture of experts")
def mixtral(batch: int = 2, length: int = 48, optimizer: str = "adamw", train: bool = True, experts: int = 4) -> Step:
    """Mixtral: two of four experts for each token."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=2000,
        num_local_experts=experts,
        num_experts_per_tok=2,
        sliding_window=None,
    )
    return text_step(MixtralForCausalLM(config), batch, length, 2000, optimizer, train)


@family("mixture of experts")
def qwen_moe(batch: int = 2, length: int = 48, optimizer: str = "adamw", train: bool = True, experts: int = 8) -> Step:
    """Qwen2-MoE: many small experts and a shared one."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    config = Qwen2MoeConfig(
        hidden_size=128,
        intermediate_size=256,
        moe_intermediate_size=96,
        shared_expert_intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=2000,
        num_experts=experts,
        num_experts_per_tok=2,
    )
    return text_step(Qwen2MoeForCausalLM(config), batch, length, 2000, optimizer, train)


@family("state space")
def mamba(batch: int = 1, length: int = 32, optimizer: str = "adamw", train: bool = True) -> Step:
    """Mamba: a selective scan, one position after another."""
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(hidden_size=96, num_hidden_layers=2, vocab_size=2000, state_size=16, use_mambapy=False)
    return text_step(MambaForCausalLM(config), batch, length, 2000, optimizer, train)


@family("state space")
def mamba2(batch: int = 1, length: int = 64, optimizer: str = "adamw", train: bool = True) -> Step:
    """Mamba 2: the scan as products over chunks."""
    from transformers import Mamba2Config, Mamba2ForCausalLM

    config = Mamba2Config(
        hidden_size=64,
        num_hidden_layers=2,
        vocab_size=2000,
        state_size=16,
        num_heads=8,
        head_dim=16,
        n_groups=1,
        chunk_size=32,
    )
    return text_step(Mamba2ForCausalLM(config), batch, length, 2000, optimizer, train)


class Recurrent(nn.Module):
    """A language model on ``nn.LSTM`` or ``nn.GRU``."""

    def __init__(self, kind: type[nn.RNNBase], vocabulary: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.recurrent = kind(width, width, num_layers=layers, dropout=dropout, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(self.embedding(ids))[0])  # type: ignore[no-any-return]


def _next_token(output: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output.flatten(0, 1), torch.zeros(output.shape[:2].numel(), dtype=torch.long))


@family("recurrent")
def lstm(
    batch: int = 4,
    length: int = 32,
    optimizer: str = "adamw",
    train: bool = True,
    width: int = 128,
    layers: int = 2,
    dropout: float = 0.1,
) -> Step:
    """A language model on a two-layer LSTM."""
    return as_step(
        Recurrent(nn.LSTM, 2000, width, layers, dropout), tokens(batch, length, 2000), optimizer, train, _next_token
    )


@family("recurrent")
def gru(
    batch: int = 4,
    length: int = 32,
    optimizer: str = "adamw",
    train: bool = True,
    width: int = 128,
    layers: int = 2,
    dropout: float = 0.1,
) -> Step:
    """A language model on a two-layer GRU."""
    return as_step(
        Recurrent(nn.GRU, 2000, width, layers, dropout), tokens(batch, length, 2000), optimizer, train, _next_token
    )


@family("convolution 3-D")
def conv3d(batch: int = 2, size: int = 16, optimizer: str = "adamw", train: bool = True, width: int = 16) -> Step:
    """A small network over volumes."""
    model = nn.Sequential(
        nn.Conv3d(1, width, 3, padding=1),
        nn.BatchNorm3d(width),
        nn.ReLU(),
        nn.Conv3d(width, 2 * width, 3, 2, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 10),
    )
    return as_step(
        model, torch.randn(batch, 1, size, size, size), optimizer, train, lambda output: output.square().mean()
    )


@family("dense")
def mlp(
    batch: int = 64,
    optimizer: str = "adamw",
    train: bool = True,
    width: int = 512,
    layers: int = 4,
    dropout: float = 0.0,
) -> Step:
    """A multi-layer perceptron."""
    blocks = [module for _ in range(layers) for module in (nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout))]
    return as_step(
        nn.Sequential(*blocks, nn.Linear(width, 10)),
        torch.randn(batch, width),
        optimizer,
        train,
        lambda y: y.square().mean(),
    )


class Block(nn.Module):
    """A transformer block in the manner of GPT-2: layer norm first, causal attention, GELU."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.joint, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.joint(self.norm1(x)).split(width, dim=2)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        attention = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        x = x + nn.functional.dropout(attention, self.dropout, self.training)
        hidden = self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return x + nn.functional.dropout(hidden, self.dropout, self.training)


@family("decoder")
def g(
    batch: int = 4,
    length: int = 256,
    optimizer: str = "none",
    train: bool = True,
    layers: int = 8,
    width: int = 256,
    heads: int = 4,
    dropout: float = 0.0,
    classes: int = 128,
) -> Step:
    """G of the tables: a trunk like GPT-2's, without a big vocabulary; 25.4 MB of gradients."""
    trunk: list[nn.Module] = [Block(width, heads, dropout) for _ in range(layers)]
    model = nn.Sequential(*trunk, nn.LayerNorm(width), nn.Linear(width, classes, bias=False))
    return as_step(model, torch.randn(batch, length, width), optimizer, train, lambda y: y.square().mean())


class Basic(nn.Module):
    """A basic residual block."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.conv2, self.norm2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        same = stride == 1 and inside == outside
        self.short: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu(self.norm1(self.conv1(x)))
        return nn.functional.relu(self.norm2(self.conv2(y)) + self.short(x))


@family("convolution")
def r(
    batch: int = 16, size: int = 32, optimizer: str = "none", train: bool = True, width: int = 32, blocks: int = 3
) -> Step:
    """R of the tables: nine basic blocks, widths 32 to 128, batch 16 of 3x32x32."""
    layers: list[Any] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inside = width
    for stage in range(3):
        for block in range(blocks):
            outside = width << stage
            layers.append(Basic(inside, outside, 2 if stage and not block else 1))
            inside = outside
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))
    labels = torch.randint(0, 10, (batch,))
    return as_step(
        model, torch.randn(batch, 3, size, size), optimizer, train, lambda y: nn.functional.cross_entropy(y, labels)
    )
