"""Ten small transformers models with dropout on, as Steps; each runs in well under a second."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as tf

from memfit.ir.step import Step

B, T = 2, 12


def _ids(vocabulary: int = 61, length: int = T) -> torch.Tensor:
    return torch.randint(3, vocabulary, (B, length), generator=torch.Generator().manual_seed(7))


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(8))


def _causal(model: torch.nn.Module) -> Step:
    return Step(model=model, inputs={"input_ids": _ids(), "labels": _ids()}, train=True)


def gpt2() -> Step:
    return _causal(tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=61, n_positions=32, n_embd=16, n_layer=3, n_head=2)))


def bert() -> Step:
    config = tf.BertConfig(
        vocab_size=61, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32
    )
    mask = torch.ones(B, T, dtype=torch.long)
    mask[0, 8:] = 0
    return Step(tf.BertForMaskedLM(config), {"input_ids": _ids(), "attention_mask": mask, "labels": _ids()}, train=True)


def vit() -> Step:
    config = tf.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, num_labels=5,
    )  # fmt: skip
    return Step(
        tf.ViTForImageClassification(config), {"pixel_values": _noise(B, 3, 16, 16), "labels": torch.tensor([1, 3])}
    )


def t5() -> Step:
    config = tf.T5Config(
        vocab_size=61, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return Step(tf.T5ForConditionalGeneration(config), {"input_ids": _ids(), "labels": _ids()}, train=True)


def llama() -> Step:
    config = tf.LlamaConfig(
        vocab_size=61, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, attention_dropout=0.1,
    )  # fmt: skip
    return _causal(tf.LlamaForCausalLM(config))


def mixtral() -> Step:
    config = tf.MixtralConfig(
        vocab_size=61, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, num_local_experts=4, attention_dropout=0.1, output_router_logits=True,
    )  # fmt: skip
    return _causal(tf.MixtralForCausalLM(config))


def whisper() -> Step:
    config = tf.WhisperConfig(
        vocab_size=61, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8, max_source_positions=10,
        max_target_positions=16, dropout=0.1, attention_dropout=0.1, decoder_start_token_id=1, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, begin_suppress_tokens=None, encoder_layerdrop=0.2, decoder_layerdrop=0.2,
    )  # fmt: skip
    return Step(
        tf.WhisperForConditionalGeneration(config), {"input_features": _noise(B, 8, 20), "labels": _ids()}, train=True
    )


def resnet() -> Step:
    config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic", num_labels=5)
    return Step(
        tf.ResNetForImageClassification(config),
        {"pixel_values": _noise(4, 3, 32, 32), "labels": torch.tensor([1, 3, 0, 2])},
    )


def swin() -> Step:
    config = tf.SwinConfig(
        image_size=16, patch_size=2, embed_dim=8, depths=[2, 1], num_heads=[1, 2], window_size=4, num_labels=5,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, drop_path_rate=0.3,
    )  # fmt: skip
    return Step(
        tf.SwinForImageClassification(config), {"pixel_values": _noise(B, 3, 16, 16), "labels": torch.tensor([1, 3])}
    )


def mamba() -> Step:
    config = tf.MambaConfig(vocab_size=61, hidden_size=16, state_size=4, num_hidden_layers=2, expand=2)
    return _causal(tf.MambaForCausalLM(config))


MODELS: dict[str, Callable[[], Step]] = {
    f.__name__: f for f in (gpt2, bert, vit, t5, llama, mixtral, whisper, resnet, swin, mamba)
}  # fmt: skip
