"""What is trained: the scenes, the sizes of the networks, and the share of the minutes of each stage.

Every stage ends with a learning rate of zero, on a fast machine and on a slow one.
"""

from dataclasses import dataclass, replace

from .world.scenes import FIRST_PART, MANY_THINGS, WHOLE_WORLD, Domain


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result, except the seed and the minutes."""

    domain: Domain
    images: int  # rendered and encoded once
    vae_channels: tuple[int, ...]
    unet_channels: tuple[int, ...]
    unet_heads: tuple[int, ...]
    unet_attention: tuple[bool, ...]  # cross-attention or not, at each resolution
    text_layers: int
    batch: int
    learning_rate: float = 1e-3
    side: int = 128
    latent_channels: int = 6
    text_width: int = 256
    vae_images: int = 12_000
    vae_batch: int = 8
    vae_crop: int = 64
    caption_dropout: float = 0.1
    foreground_weight: float = 4.0  # added to the weight 1 of the loss where a thing is
    text_training_share: float = 0.3  # of the U-Net's time. The text encoder is frozen afterwards.
    # shares of the minutes
    vae_share: float = 0.25
    text_encoder_share: float = 0.06
    unet_share: float = 0.6
    decoder_share: float = 0.05
    image_encoder_share: float = 0.04


# Two processor cores, an hour and a half: few subjects, sharp images.
_CPU = Recipe(
    domain=FIRST_PART,
    images=48_000,
    vae_channels=(16, 32, 64, 128),
    unet_channels=(64, 128, 192),
    unet_heads=(2, 4, 6),
    unet_attention=(False, True, True),
    text_layers=3,
    batch=32,
)
RECIPES = {
    "cpu": _CPU,
    # To fine-tune (`--from`) on scenes with several things.
    "many": replace(_CPU, domain=MANY_THINGS, batch=48),
    # One large GPU, half an hour: the whole world.
    "gpu": Recipe(
        domain=WHOLE_WORLD,
        images=300_000,
        vae_channels=(32, 64, 128, 128),
        unet_channels=(128, 192, 256),
        unet_heads=(4, 6, 8),
        unet_attention=(True, True, True),
        text_layers=3,
        batch=512,
        vae_images=40_000,
        vae_batch=128,
    ),
}
