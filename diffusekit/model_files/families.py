"""The families of Stable Diffusion that can be loaded, and the parts that a model of each has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["text", "inpainting"]


@dataclass(frozen=True)
class EncoderPart:
    """The folders of a text encoder and its tokenizer. `is_projected`: its pooled state goes through a projection."""

    folder: str
    tokenizer: str
    is_projected: bool = False


@dataclass(frozen=True)
class Family:
    """What the models of one family have in common: the names of their parts, and what people call them."""

    name: str
    label: str
    encoders: tuple[EncoderPart, ...]

    @property
    def networks(self) -> tuple[str, ...]:
        """The folders that hold weights."""
        return (*(encoder.folder for encoder in self.encoders), "unet", "vae")

    @property
    def tokenizers(self) -> tuple[str, ...]:
        return tuple(encoder.tokenizer for encoder in self.encoders)

    @property
    def takes_size(self) -> bool:
        """Whether the U-Net takes the pooled prompt and the size of the image beside the text states."""
        return len(self.encoders) > 1

    @property
    def parts(self) -> tuple[str, ...]:
        """Every folder that a model needs."""
        return (*self.tokenizers, *self.networks, "scheduler")


_CLIP = EncoderPart("text_encoder", "tokenizer")
_CLIP_G = EncoderPart("text_encoder_2", "tokenizer_2", is_projected=True)
SD1 = Family("sd1", "Stable Diffusion 1.x", (_CLIP,))
SD2 = Family("sd2", "Stable Diffusion 2.x", (_CLIP,))
SDXL = Family("sdxl", "Stable Diffusion XL", (_CLIP, _CLIP_G))
FAMILIES = {family.name: family for family in (SD1, SD2, SDXL)}

# Pipelines of diffusers whose models can be loaded. Stable Diffusion 1.x and 2.x have the same classes.
PIPELINES = {
    "StableDiffusionPipeline": SD1,
    "StableDiffusionImg2ImgPipeline": SD1,
    "StableDiffusionInpaintPipeline": SD1,
    "LatentConsistencyModelPipeline": SD1,
    "LatentConsistencyModelImg2ImgPipeline": SD1,
    "StableDiffusionXLPipeline": SDXL,
    "StableDiffusionXLInpaintPipeline": SDXL,
}
SUPPORTED = "supported: Stable Diffusion 1.x, 2.x and XL, for images from text and for inpainting"
