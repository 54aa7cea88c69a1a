"""The zoo's vision models: transformers, convolutions, and those that make images."""

from __future__ import annotations

from typing import Any

import torch
from zoo_steps import as_step, family, image_step

from memfit.ir.step import Step


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
